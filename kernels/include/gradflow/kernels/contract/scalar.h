// One learned number for a whole tensor. The rules of every call stand in kernels/backend.h.
#pragma once

#include <cstddef>

#include "gradflow/kernels/dtype.h"

namespace gradflow::kernels {

// y[i] = scale * x[i] + shift, the product rounded before the sum. scale and shift are one number each, in device
// memory, f32 for bf16.
struct ScalarForward {
  DType dtype = DType::f32;
  std::size_t n = 0;
  const void* x = nullptr;
  void* y = nullptr;            // may alias x
  const void* scale = nullptr;  // null: y = x + shift
  const void* shift = nullptr;  // null: y = scale * x; one of the two is there
};

// dx[i] (=|+=) scale * dy[i]; *dscale (=|+=) sum of x[i] dy[i]; *dshift (=|+=) sum of dy[i]. Both sums are formed
// in f64 in a fixed order and rounded once.
struct ScalarBackward {
  DType dtype = DType::f32;
  std::size_t n = 0;
  const void* x = nullptr;  // read where dscale is wanted
  const void* dy = nullptr;
  void* dx = nullptr;  // may alias dy with overwrite
  GradMode mode = GradMode::overwrite;
  const void* scale = nullptr;  // null: 1
  void* dscale = nullptr;       // null: not wanted
  void* dshift = nullptr;       // null: not wanted
  GradMode parameter_mode = GradMode::overwrite;
};

}  // namespace gradflow::kernels
