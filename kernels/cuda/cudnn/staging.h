// cuDNN's kernels read and write 16 bytes at a time and refuse, or fault on, operands that lie elsewhere; the contract allows
// any address. What the engine plans is aligned, so this is for other callers alone.
#pragma once

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <vector>

#include "kernels/cuda/device_queue.h"

namespace gradflow::kernels::cuda {

struct Operand {
  const void* at = nullptr;
  std::size_t bytes = 0;
  bool read = true, written = false;
};

// For each operand that is not at a multiple of 16, where its copy begins (a multiple of 256); for others kInPlace.
inline constexpr std::size_t kInPlace = static_cast<std::size_t>(-1);
struct StagingPlan {
  std::vector<std::size_t> places;
  std::size_t bytes = 0;
};
inline StagingPlan plan_staging(std::initializer_list<Operand> operands) {
  StagingPlan plan;
  for (const Operand& o : operands) {
    const bool aligned = reinterpret_cast<std::uintptr_t>(o.at) % 16 == 0;
    plan.places.push_back(aligned ? kInPlace : plan.bytes);
    if (!aligned) plan.bytes += (o.bytes + 255) / 256 * 256;
  }
  return plan;
}

// The operands of one call where cuDNN can take them: where they are, or copied to the queue's workspace.
class Staging {
 public:
  Staging(DeviceQueue& queue, std::initializer_list<Operand> operands);
  void* operator[](std::size_t operand) const;
  void finish();  // queues the way back of what was written; after the call

 private:
  DeviceQueue& queue_;
  std::vector<Operand> operands_;
  StagingPlan plan_;
  char* room_ = nullptr;
};

}  // namespace gradflow::kernels::cuda
