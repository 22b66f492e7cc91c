// What a device can do with this module, and the sentences for where it cannot. Plain C++: no CUDA header.
#pragma once

#include <string>

namespace gradflow::kernels::cuda {

// "compute 9.0"
struct ComputeCapability {
  int major = 0, minor = 0;

  // From Ampere on tensor cores read bf16, and f32 as TF32.
  bool has_bf16_and_tf32() const noexcept { return major >= 8; }
};
std::string text_of(const ComputeCapability& capability);

// UserError on a device that has no TF32. `device`: "cuda:0".
void require_tf32(const std::string& device, const ComputeCapability& capability);

// What is said where the module holds no code that `device` ("cuda:0") can run. `architectures`: those it was built for, as
// CMake names them, "80, 90"; `reason`: the runtime's own.
std::string not_built_for(const std::string& device, const ComputeCapability& capability,
                          const std::string& architectures, const std::string& reason);

}  // namespace gradflow::kernels::cuda
