#include "kernels/cuda/supported.h"

#include <fmt/format.h>

#include "gradflow/kernels/error.h"
#include "kernels/cuda/queue.h"

namespace gradflow::kernels::cuda {
namespace {

[[noreturn]] void refuse(DType dtype, const char* operation, const char* supported) {
  throw UserError(fmt::format("{} on CUDA supports {}, not {}{}", operation, supported, name_of(dtype),
                              dtype == DType::f64 ? " (f64 runs on the cpu device)" : ""));
}

}  // namespace

void require_supported(DType dtype, const char* operation) {
  if (dtype != DType::f32) refuse(dtype, operation, "f32");
}

void require_storage(DType dtype, const char* operation) {
  if (dtype != DType::f32 && dtype != DType::bf16) refuse(dtype, operation, "f32 and bf16");
}

std::string text_of(const ComputeCapability& c) { return fmt::format("compute {}.{}", c.major, c.minor); }

void require_tf32(const std::string& device, const ComputeCapability& c) {
  if (!c.has_bf16_and_tf32())
    throw UserError(fmt::format("TF32 needs a device of compute 8.0 or above, and {} has {}: leave out --tf32", device, text_of(c)));
}

std::string not_built_for(const std::string& device, const ComputeCapability& c, const std::string& architectures,
                          const std::string& reason) {
  return fmt::format("the CUDA module has no code for {} ({}): it was built for the architectures {} ({}); build it for this one: "
                     "make build CMAKE_ARGS=-DCMAKE_CUDA_ARCHITECTURES={}{}",
                     device, text_of(c), architectures, reason, c.major, c.minor);
}

}  // namespace gradflow::kernels::cuda
