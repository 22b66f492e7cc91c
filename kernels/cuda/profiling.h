// What profilers and benchmarks see of a backend: named ranges, the window they collect, event timers.
#pragma once

#include <nvtx3/nvToolsExt.h>

#include <memory>
#include <string>
#include <unordered_map>

#include "gradflow/kernels/backend.h"
#include "kernels/cuda/device_queue.h"

namespace gradflow::kernels::cuda {

// NVTX domain "gradflow". Names are registered strings: a range pushes a handle, not a text.
class Ranges {
 public:
  Ranges();  // off with GRADFLOW_NVTX=0 in the environment
  ~Ranges();
  Ranges(const Ranges&) = delete;
  Ranges& operator=(const Ranges&) = delete;

  RangeName name(const char* text);  // null when off
  void begin(RangeName name) noexcept;
  void end() noexcept;

 private:
  nvtxDomainHandle_t domain_ = nullptr;
  std::unordered_map<std::string, nvtxStringHandle_t> names_;
};

void profile_start(const DeviceQueue& queue);
void profile_stop(const DeviceQueue& queue);

// Two events on the queue's stream; the queue must outlive the timer.
std::unique_ptr<Timer> make_timer(const DeviceQueue& queue);

}  // namespace gradflow::kernels::cuda
