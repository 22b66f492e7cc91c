// Statistics that are launches of their own. The rules of every call stand in kernels/backend.h.
#pragma once

#include <cstddef>
#include <cstdint>

#include "gradflow/kernels/dtype.h"
#include "gradflow/kernels/pointwise_ops.h"
#include "gradflow/kernels/stats.h"

namespace gradflow::kernels {

struct StatsOf {  // adds the statistics of x to *out; `op` decides what counts as saturated
  DType dtype = DType::f32;
  std::size_t n = 0;
  const void* x = nullptr;
  PointwiseId op = PointwiseId::identity;
  Stats* out = nullptr;
};

struct DifferenceStats {  // statistics of (a - b), formed in f64; *dot += sum b*(a - b). a = total
  DType dtype = DType::f32;  // gradient, b = the part that came by the skip: splits a residual gradient
  std::size_t n = 0;
  const void* a = nullptr;
  const void* b = nullptr;
  Stats* difference = nullptr;
  double* dot = nullptr;
};

struct ExponentHistogram {  // bins[kExponentBins] += counts
  DType dtype = DType::f32;
  std::size_t n = 0;
  const void* x = nullptr;
  std::uint64_t* bins = nullptr;
};

struct MarkAlive {  // alive[c] |= any row of y[rows, columns] with y[r,c] > 0 (NaN counts as alive)
  DType dtype = DType::f32;
  std::size_t rows = 0, columns = 0;
  const void* y = nullptr;
  std::uint8_t* alive = nullptr;
};

}  // namespace gradflow::kernels
