// Residual addition, forward and backward, with gates read from device memory; alone, or with the activation
// behind it (residual_<op>_forward_f32, ...).
// Bytes moved per element in f32: forward 12; backward 12, plus 4 for each accumulated output and 4 with an
// activation. Half in bf16.
#pragma once

#include "gradflow/kernels/backend.h"
#include "kernels/cuda/measured.cuh"

namespace gradflow::kernels::cuda {

// What to do with one gradient output.
template <class S>
struct GradientOut {
  S* to;
  GradMode mode;
};

template <class Op, class S, int kMeasured>
struct ResidualForwardBody {
  static constexpr int kWidth = kPackOf<S>;
  const S* skip;
  const S* branch;
  S* y;
  float skip_factor, branch_factor;
  Measured<kMeasured> measured;

  template <int W>
  struct Loaded {
    Pack<W> skip, branch;
  };

  template <int W>
  __device__ Loaded<W> load(std::size_t i) const {
    return {load_pack<W>(skip + i), load_pack<W>(branch + i)};
  }

  template <int W>
  __device__ void store(std::size_t i, const Loaded<W>& in) {
    Pack<W> out;
#pragma unroll
    for (int k = 0; k < W; ++k) {
      const float sum = fmaf(skip_factor, in.skip.v[k], branch_factor * in.branch.v[k]);
      out.v[k] = as_stored<S>(Op::template forward<Math>(sum));
    }
    measured.add(0, out);
    store_pack(y + i, out);
  }
};

template <class Op, class S, int kMeasured>
__device__ inline void residual_forward(const S* skip, const S* branch, S* y, const Gates* gates,
                                        double scale, std::size_t n, bool vector,
                                        const Measured<kMeasured>& measured, const ReductionScratch& scratch) {
  const auto branch_factor = static_cast<float>(gates->forward_branch * scale);
  ResidualForwardBody<Op, S, kMeasured> body{skip, branch, y, gates->forward_skip, branch_factor, measured};
  body.measured.begin();
  stream_over<kMeasured == 0 ? 2 : 1>(n, vector, body);
  body.measured.finish(n, scratch);
}

template <class Op, class S, int kMeasured>
struct ResidualBackwardBody {
  static constexpr int kWidth = kPackOf<S>;
  static constexpr bool kActivation = Op::id != PointwiseId::identity;
  const S* y;  // read with an activation only
  const S* dy;
  GradientOut<S> skip, branch;
  float skip_factor, branch_factor;
  Measured<kMeasured> measured;

  template <int W>
  struct Loaded {
    Pack<W> y, dy, dskip, dbranch;
  };

  template <int W>
  __device__ Loaded<W> load(std::size_t i) const {
    Loaded<W> in;
    in.dy = load_pack<W>(dy + i);
    if constexpr (kActivation) in.y = load_pack<W>(y + i);
    if (skip.mode == GradMode::accumulate) in.dskip = load_pack<W>(skip.to + i);
    if (branch.mode == GradMode::accumulate) in.dbranch = load_pack<W>(branch.to + i);
    return in;
  }

  template <int W>
  static __device__ void write(const GradientOut<S>& out, std::size_t i, float factor, const Pack<W>& dy,
                               const Pack<W>& old) {
    if (out.mode == GradMode::none) return;
    Pack<W> d;
#pragma unroll
    for (int k = 0; k < W; ++k) {
      d.v[k] = out.mode == GradMode::accumulate ? fmaf(factor, dy.v[k], old.v[k]) : factor * dy.v[k];
    }
    store_pack(out.to + i, d);
  }

  template <int W>
  __device__ void store(std::size_t i, const Loaded<W>& in) {
    measured.add(0, in.dy);
    Pack<W> dz = in.dy;
    if constexpr (kActivation) {
#pragma unroll
      for (int k = 0; k < W; ++k) dz.v[k] = Op::template backward<Math>(in.y.v[k], in.dy.v[k]);
    }
    write(skip, i, skip_factor, dz, in.dskip);
    write(branch, i, branch_factor, dz, in.dbranch);
  }
};

template <class Op, class S, int kMeasured>
__device__ inline void residual_backward(const S* y, const S* dy, GradientOut<S> skip, GradientOut<S> branch,
                                         const Gates* gates, double scale, std::size_t n, bool vector,
                                         const Measured<kMeasured>& measured, const ReductionScratch& scratch) {
  const auto branch_factor = static_cast<float>(gates->backward_branch * scale);
  ResidualBackwardBody<Op, S, kMeasured> body{y, dy, skip, branch, gates->backward_skip, branch_factor, measured};
  body.measured.begin();
  stream_over<kMeasured == 0 ? 2 : 1>(n, vector, body);
  body.measured.finish(n, scratch);
}

#define GRADFLOW_RESIDUAL_FORWARD_KERNEL(Op, residual, S, s)                                         \
  extern "C" __global__ void __launch_bounds__(kBlockThreads)                                        \
      residual##_forward_##s(const S* skip, const S* branch, S* y, const Gates* gates, double scale, \
                             std::size_t n, bool vector) {                                           \
    residual_forward<ops::Op, S, 0>(skip, branch, y, gates, scale, n, vector, {}, {});            \
  }

#define GRADFLOW_RESIDUAL_OP_KERNELS_IN(Op, residual, S, s)                                          \
  GRADFLOW_RESIDUAL_FORWARD_KERNEL(Op, residual, S, s)                                               \
  extern "C" __global__ void __launch_bounds__(kBlockThreads)                                        \
      residual##_backward_##s(const S* y, const S* dy, GradientOut<S> skip, GradientOut<S> branch,   \
                              const Gates* gates, double scale, std::size_t n, bool vector) {        \
    residual_backward<ops::Op, S, 0>(y, dy, skip, branch, gates, scale, n, vector, {}, {});     \
  }

// Measured in the same pass; an addition with an activation is measured by launches of their own.
#define GRADFLOW_RESIDUAL_KERNELS(S, s)                                                                   \
  GRADFLOW_RESIDUAL_FORWARD_KERNEL(Identity, residual, S, s)                                              \
  extern "C" __global__ void __launch_bounds__(kBlockThreads)                                             \
      residual_backward_##s(const S* dy, GradientOut<S> skip, GradientOut<S> branch, const Gates* gates,  \
                            double scale, std::size_t n, bool vector) {                                   \
    residual_backward<ops::Identity, S, 0>(nullptr, dy, skip, branch, gates, scale, n, vector, {}, {});   \
  }                                                                                                       \
  extern "C" __global__ void __launch_bounds__(kBlockThreads)                                             \
      residual_forward_stats_##s(const S* skip, const S* branch, S* y, const Gates* gates, double scale,  \
                                 std::size_t n, bool vector, Sinks y_sinks, ReductionScratch scratch) {   \
    residual_forward<ops::Identity, S, 1>(skip, branch, y, gates, scale, n, vector,                       \
                                          {{y_sinks}, {}, {}}, scratch);                                  \
  }                                                                                                       \
  extern "C" __global__ void __launch_bounds__(kBlockThreads)                                             \
      residual_backward_stats_##s(const S* dy, GradientOut<S> skip, GradientOut<S> branch,                \
                                  const Gates* gates, double scale, std::size_t n, bool vector,           \
                                  Sinks dy_sinks, ReductionScratch scratch) {                             \
    residual_backward<ops::Identity, S, 1>(nullptr, dy, skip, branch, gates, scale, n, vector,            \
                                           {{dy_sinks}, {}, {}}, scratch);                                \
  }

#define GRADFLOW_RESIDUAL_OP_KERNELS(Op, op)                     \
  static_assert(ops::Op::saves == Saves::y);                     \
  GRADFLOW_RESIDUAL_OP_KERNELS_IN(Op, residual_##op, float, f32) \
  GRADFLOW_RESIDUAL_OP_KERNELS_IN(Op, residual_##op, Bf16, bf16)

GRADFLOW_RESIDUAL_KERNELS(float, f32)
GRADFLOW_RESIDUAL_KERNELS(Bf16, bf16)
GRADFLOW_FROM_OUTPUT_OPS(GRADFLOW_RESIDUAL_OP_KERNELS)

#undef GRADFLOW_RESIDUAL_OP_KERNELS
#undef GRADFLOW_RESIDUAL_OP_KERNELS_IN
#undef GRADFLOW_RESIDUAL_KERNELS
#undef GRADFLOW_RESIDUAL_FORWARD_KERNEL

}  // namespace gradflow::kernels::cuda
