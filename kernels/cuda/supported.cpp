#include <fmt/format.h>

#include "gradflow/kernels/error.h"
#include "kernels/cuda/queue.h"

namespace gradflow::kernels::cuda {

void require_supported(DType dtype, const char* operation) {
  if (dtype == DType::f32) return;
  throw UserError(fmt::format("{} on CUDA supports f32, not {}{}", operation, name_of(dtype),
                              dtype == DType::f64 ? " (f64 runs on the cpu device)" : ""));
}

}  // namespace gradflow::kernels::cuda
