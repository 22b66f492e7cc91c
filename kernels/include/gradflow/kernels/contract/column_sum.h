// Sums over rows. The rules of every call stand in kernels/backend.h.
#pragma once

#include <cstddef>

#include "gradflow/kernels/dtype.h"

namespace gradflow::kernels {

struct ColumnSum {  // y[columns] (=|+=) sum over rows of x[rows, columns]; bias gradients. y is f32 for bf16 x
  DType dtype = DType::f32;
  std::size_t rows = 0, columns = 0;
  const void* x = nullptr;
  void* y = nullptr;
  GradMode mode = GradMode::overwrite;
};

}  // namespace gradflow::kernels
