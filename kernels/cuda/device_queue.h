// The one stream of a CUDA backend, the one place kernels are launched, and the scratch memory they share.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <vector>

#include "kernels/cuda/queue.h"
#include "kernels/cuda/supported.h"

namespace gradflow::kernels::cuda {

// 256-byte aligned memory of the current device; throws UserError naming the bytes wanted and available.
void* allocate_on_device(std::size_t bytes);

class DeviceQueue final : public Queue {
 public:
  // Creates a stream on cuda:ordinal. With GRADFLOW_CUDA_SYNC=1 in the environment every launch is waited
  // for, so that a fault is reported by the kernel that made it.
  explicit DeviceQueue(int ordinal);
  ~DeviceQueue() override;
  DeviceQueue(const DeviceQueue&) = delete;
  DeviceQueue& operator=(const DeviceQueue&) = delete;

  // UserError where the module has no code for this device.
  void launch(const char* name, const BlockGrid& grid, const void* entry, void** arguments) override;
  void* workspace(std::size_t bytes) override;

  // Makes the device current for the calling thread; every use of the runtime starts with it.
  void activate() const;
  void synchronize() const;
  cudaStream_t stream() const noexcept { return stream_; }
  int ordinal() const noexcept { return ordinal_; }
  const ComputeCapability& capability() const noexcept { return capability_; }
  bool waits_for_each() const noexcept { return wait_for_each_; }  // for finding faults

 private:
  void release() noexcept;

  int ordinal_;
  ComputeCapability capability_;
  bool wait_for_each_ = false;
  cudaStream_t stream_ = nullptr;
  std::size_t workspace_bytes_ = 0;
  std::vector<void*> allocations_;  // the last is the workspace, once there is one
};

}  // namespace gradflow::kernels::cuda
