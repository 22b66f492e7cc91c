// Residual addition, alone or with the activation behind it. The rules of every call stand in kernels/backend.h.
#pragma once

#include <cstddef>
#include <cstdint>

#include "gradflow/kernels/contract/gates.h"
#include "gradflow/kernels/dtype.h"
#include "gradflow/kernels/pointwise_ops.h"
#include "gradflow/kernels/stats.h"

namespace gradflow::kernels {

struct ResidualForward {  // y = forward_skip * skip + (forward_branch * scale) * branch
  DType dtype = DType::f32;
  std::size_t n = 0;
  const void* skip = nullptr;
  const void* branch = nullptr;
  void* y = nullptr;  // may alias skip or branch
  const Gates* gates = nullptr;
  double scale = 1;
  Stats* y_stats = nullptr;               // of y, behind op
  PointwiseId op = PointwiseId::identity;  // y = op(the sum); one that saves its output, else InternalError
  std::uint64_t* y_exponents = nullptr;    // histogram of y, as of ExponentHistogram
  Stats* branch_stats = nullptr;
  std::uint64_t* branch_exponents = nullptr;
  Stats* sum_stats = nullptr;  // of the sum in front of op, as dtype would store it
  std::uint64_t* sum_exponents = nullptr;
};

struct ResidualBackward {  // dskip (=|+=) backward_skip * dy; dbranch (=|+=) (backward_branch*scale) * dy
  DType dtype = DType::f32;
  std::size_t n = 0;
  const void* dy = nullptr;
  void* dskip = nullptr;  // may alias dy (with overwrite); dskip and dbranch differ
  GradMode skip_mode = GradMode::overwrite;
  void* dbranch = nullptr;  // may alias dy (with overwrite) if dskip does not
  GradMode branch_mode = GradMode::overwrite;
  const Gates* gates = nullptr;
  double scale = 1;
  Stats* dy_stats = nullptr;
  PointwiseId op = PointwiseId::identity;  // with another, op'(y)*dy takes the place of dy above; it is not rounded
  const void* y = nullptr;                // what forward wrote; not read for identity
  std::uint64_t* dy_exponents = nullptr;
  Stats* dsum_stats = nullptr;  // of op'(y)*dy, as dtype would store it
  std::uint64_t* dsum_exponents = nullptr;
  Stats* dbranch_stats = nullptr;  // of dbranch as it stands afterwards; untouched where its mode is none
  std::uint64_t* dbranch_exponents = nullptr;
};

}  // namespace gradflow::kernels
