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

}  // namespace gradflow::kernels::cuda
