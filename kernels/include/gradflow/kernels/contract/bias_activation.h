// Bias and activation in one pass. The rules of every call stand in kernels/backend.h.
#pragma once

#include <cstddef>
#include <cstdint>

#include "gradflow/kernels/dtype.h"
#include "gradflow/kernels/pointwise_ops.h"
#include "gradflow/kernels/stats.h"

namespace gradflow::kernels {

// In both calls: sinks are for ops that save their output, InternalError with another.

// A bias for each column and an activation, in one pass: y = op(x + bias[column]), the sum not rounded to dtype.
struct BiasActivationForward {
  PointwiseId op{};
  DType dtype = DType::f32;
  std::size_t rows = 0, columns = 0;
  const void* x = nullptr;
  const void* bias = nullptr;  // [columns], f32 for bf16
  void* y = nullptr;           // may alias x where op saves its output
  Stats* z_stats = nullptr;    // of the sum in front of op, as dtype would store it
  Stats* y_stats = nullptr;    // also counts saturated outputs
  std::uint64_t* z_exponents = nullptr;  // histograms as of ExponentHistogram
  std::uint64_t* y_exponents = nullptr;
};

// dx = op'(.) * dy and, in the same pass, dbias[column] (=|+=) the sum over rows of dx, as stored.
struct BiasActivationBackward {
  PointwiseId op{};
  DType dtype = DType::f32;
  std::size_t rows = 0, columns = 0;
  const void* saved = nullptr;  // y, or the x in front of the bias, as PointwiseInfo::saves says
  const void* bias = nullptr;   // read where op saves its input
  const void* dy = nullptr;
  void* dx = nullptr;           // may alias dy
  void* dbias = nullptr;        // [columns], f32 for bf16
  GradMode bias_mode = GradMode::overwrite;
  Stats* dy_stats = nullptr;
  Stats* dx_stats = nullptr;
  std::uint64_t* dy_exponents = nullptr;
  std::uint64_t* dx_exponents = nullptr;
};

}  // namespace gradflow::kernels
