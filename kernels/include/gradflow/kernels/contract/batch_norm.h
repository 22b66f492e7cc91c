// Batch normalization, alone or with what follows it. The rules of every call stand in kernels/backend.h.
#pragma once

#include <cstddef>
#include <cstdint>

#include "gradflow/kernels/contract/gates.h"
#include "gradflow/kernels/dtype.h"
#include "gradflow/kernels/pointwise_ops.h"
#include "gradflow/kernels/stats.h"

namespace gradflow::kernels {

// Over the last dimension of x[rows, channels]; convolutions pass rows = N*H*W.
//   n = scale * (x - mean) * inv_std + shift,  inv_std = 1/sqrt(var + epsilon), var biased.
// Means and variances are accumulated in f64, around a value of the same channel (the first row's, or a mean
// found before): never E[x^2] - E[x]^2. f64 input takes two passes, f32 input, whose 24 bits leave f64 29 to
// spare, one.
//
// In bf16 x, y, skip and their gradients are bf16; all else is f32. A backend may sum some numbers (at most 16) in f32
// before the sum goes on in f64: f32 has 16 bits more than what is summed.
//
// What follows in a network can be part of the same passes, with the same bits as separate launches (which round to
// dtype in between):
//   y = op(n)                                                                          if skip is null
//   y = op(forward_skip * skip + (forward_branch * branch_scale) * n)                   otherwise
// op is one that saves its output, identity for none; gates and branch_scale as in ResidualForward.
//
// Sinks measure every array of these passes, also those that are never stored, as dtype would store them.
struct BatchNormForward {
  DType dtype = DType::f32;
  std::size_t rows = 0, channels = 0;
  const void* x = nullptr;
  void* y = nullptr;                 // may alias x only when nobody reads x later (backward reads x)
  const void* scale = nullptr;       // [channels]; null means 1
  const void* shift = nullptr;       // [channels]; null means 0
  void* mean = nullptr;              // [channels] out in training (saved for backward)
  void* inv_std = nullptr;           // [channels] out in training
  void* running_mean = nullptr;      // [channels] updated in training, read otherwise
  void* running_variance = nullptr;  // same; the unbiased variance is what is averaged in
  double momentum = 0.1;             // running = (1 - momentum) * running + momentum * batch
  double epsilon = 1e-5;
  bool training = true;
  PointwiseId op = PointwiseId::identity;
  const void* skip = nullptr;        // [rows, channels]; y may alias it
  const Gates* gates = nullptr;      // with skip
  double branch_scale = 1;
  Stats *x_stats = nullptr, *n_stats = nullptr;
  Stats* sum_stats = nullptr;        // in front of op: of the sum with a skip, else of n
  Stats* y_stats = nullptr;          // also counts saturated outputs
  std::uint64_t *x_exponents = nullptr, *n_exponents = nullptr, *sum_exponents = nullptr, *y_exponents = nullptr;
};

// Training mode: the batch statistics depend on x. With d = op'(y) * dy (dy itself for identity), the gradient
// at n is d, or with a skip (backward_branch * branch_scale) * d, while dskip (=|+=) backward_skip * d.
struct BatchNormBackward {
  DType dtype = DType::f32;
  std::size_t rows = 0, channels = 0;
  const void* x = nullptr;
  const void* dy = nullptr;
  const void* scale = nullptr;
  const void* mean = nullptr;
  const void* inv_std = nullptr;
  void* dx = nullptr;  // may alias dy with overwrite, unless dskip does
  GradMode dx_mode = GradMode::overwrite;
  void* dscale = nullptr;  // null if there is no affine part
  void* dshift = nullptr;
  GradMode parameter_mode = GradMode::overwrite;
  PointwiseId op = PointwiseId::identity;
  const void* y = nullptr;       // what forward wrote; not read for identity
  bool has_skip = false;
  void* dskip = nullptr;         // may alias dy with overwrite, unless dx does
  GradMode skip_mode = GradMode::none;
  const Gates* gates = nullptr;  // with has_skip
  double branch_scale = 1;
  Stats* dy_stats = nullptr;
  Stats *dsum_stats = nullptr, *dn_stats = nullptr;  // of d, and of the gradient at n
  Stats* dx_stats = nullptr;     // of dx as it stands afterwards; untouched where its mode is none
  std::uint64_t *dy_exponents = nullptr, *dsum_exponents = nullptr, *dn_exponents = nullptr, *dx_exponents = nullptr;
};

}  // namespace gradflow::kernels
