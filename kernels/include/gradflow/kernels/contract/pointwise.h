// An activation by itself. The rules of every call stand in kernels/backend.h.
#pragma once

#include <cstddef>
#include <cstdint>

#include "gradflow/kernels/dtype.h"
#include "gradflow/kernels/pointwise_ops.h"
#include "gradflow/kernels/stats.h"

namespace gradflow::kernels {

struct PointwiseForward {  // y = op(x); y may alias x
  PointwiseId op{};
  DType dtype = DType::f32;
  std::size_t n = 0;
  const void* x = nullptr;
  void* y = nullptr;
  Stats* x_stats = nullptr;
  Stats* y_stats = nullptr;  // also counts saturated outputs
  std::uint64_t* x_exponents = nullptr;  // histograms as of ExponentHistogram
  std::uint64_t* y_exponents = nullptr;
};

struct PointwiseBackward {  // dx = or += op'(.) * dy; with overwrite, dx may alias dy
  PointwiseId op{};
  DType dtype = DType::f32;
  std::size_t n = 0;
  const void* saved = nullptr;  // x or y, as PointwiseInfo::saves says
  const void* dy = nullptr;
  void* dx = nullptr;
  GradMode mode = GradMode::overwrite;
  Stats* dy_stats = nullptr;
  Stats* dx_stats = nullptr;  // of dx as it stands afterwards; untouched where the mode is none
  std::uint64_t* dy_exponents = nullptr;
  std::uint64_t* dx_exponents = nullptr;  // likewise
};

}  // namespace gradflow::kernels
