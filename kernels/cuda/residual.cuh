// Residual addition, forward and backward, with gates read from device memory; alone, or with the activation
// behind it (residual_<op>_forward_f32, ...). Measured (residual_forward_stats_f32, ...) one kernel serves all ops.
// Bytes moved per element in f32: forward 12; backward 12, plus 4 for each accumulated output and 4 with an
// activation. Half in bf16.
#pragma once

#include "gradflow/kernels/backend.h"
#include "kernels/cuda/measured.cuh"
#include "kernels/cuda/output_op.cuh"

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
  Op op;
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
    Pack<W> sum, out;
#pragma unroll
    for (int k = 0; k < W; ++k) {
      sum.v[k] = fmaf(skip_factor, in.skip.v[k], branch_factor * in.branch.v[k]);
    }
    with_op(op, [&]<class One>(const One&) {
#pragma unroll
      for (int k = 0; k < W; ++k) out.v[k] = One::template forward<Math>(sum.v[k]);
    });
    if constexpr (kMeasured > 0) {
      measured.add(0, in.branch);
      measured.add(1, as_stored<S>(sum));
      measured.add(2, as_stored<S>(out), op);
    }
    store_pack(y + i, out);
  }
};

template <class Op, class S, int kMeasured>
__device__ inline void residual_forward(const Op& op, const S* skip, const S* branch, S* y, const Gates* gates,
                                        double scale, std::size_t n, bool vector,
                                        const Measured<kMeasured>& measured, const ReductionScratch& scratch) {
  const auto branch_factor = static_cast<float>(gates->forward_branch * scale);
  ResidualForwardBody<Op, S, kMeasured> body{op, skip, branch, y, gates->forward_skip, branch_factor, measured};
  body.measured.begin();
  stream_over<kMeasured == 0 ? 2 : 1>(n, vector, body);
  body.measured.finish(n, scratch);
}

template <class Op, class S, int kMeasured>
struct ResidualBackwardBody {
  static constexpr int kWidth = kPackOf<S>;
  static constexpr bool kActivation = !std::is_same_v<Op, ops::Identity>;
  Op op;
  const S* y;  // read with an activation only; null for an OutputOp that is none
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
    if constexpr (kActivation) {
      if (!std::is_same_v<Op, OutputOp> || y != nullptr) in.y = load_pack<W>(y + i);
    }
    if (skip.mode == GradMode::accumulate) in.dskip = load_pack<W>(skip.to + i);
    if (branch.mode == GradMode::accumulate) in.dbranch = load_pack<W>(branch.to + i);
    return in;
  }

  template <int W>
  static __device__ Pack<W> write(const GradientOut<S>& out, std::size_t i, float factor, const Pack<W>& dy,
                                  const Pack<W>& old) {
    Pack<W> d;
#pragma unroll
    for (int k = 0; k < W; ++k) {
      d.v[k] = out.mode == GradMode::accumulate ? fmaf(factor, dy.v[k], old.v[k]) : factor * dy.v[k];
    }
    store_pack(out.to + i, d);
    return d;
  }

  template <int W>
  __device__ void store(std::size_t i, const Loaded<W>& in) {
    measured.add(0, in.dy);
    Pack<W> dz = in.dy;
    if constexpr (kActivation) {
      with_op(op, [&]<class One>(const One&) {
#pragma unroll
        for (int k = 0; k < W; ++k) dz.v[k] = One::template backward<Math>(in.y.v[k], in.dy.v[k]);
      });
    }
    if (skip.mode != GradMode::none) write(skip, i, skip_factor, dz, in.dskip);
    if (branch.mode != GradMode::none) {
      const Pack<W> d = write(branch, i, branch_factor, dz, in.dbranch);
      if constexpr (kMeasured > 0) measured.add(1, as_stored<S>(d));
    }
    if constexpr (kMeasured > 0) measured.add(2, as_stored<S>(dz));
  }
};

template <class Op, class S, int kMeasured>
__device__ inline void residual_backward(const Op& op, const S* y, const S* dy, GradientOut<S> skip, GradientOut<S> branch,
                                         const Gates* gates, double scale, std::size_t n, bool vector,
                                         const Measured<kMeasured>& measured, const ReductionScratch& scratch) {
  const auto branch_factor = static_cast<float>(gates->backward_branch * scale);
  ResidualBackwardBody<Op, S, kMeasured> body{op, y, dy, skip, branch, gates->backward_skip, branch_factor, measured};
  body.measured.begin();
  stream_over<kMeasured == 0 ? 2 : 1>(n, vector, body);
  body.measured.finish(n, scratch);
}

#define GRADFLOW_RESIDUAL_FORWARD_KERNEL(Op, residual, S, s)                                         \
  extern "C" __global__ void __launch_bounds__(kBlockThreads)                                        \
      residual##_forward_##s(const S* skip, const S* branch, S* y, const Gates* gates, double scale, \
                             std::size_t n, bool vector) {                                           \
    residual_forward<ops::Op, S, 0>({}, skip, branch, y, gates, scale, n, vector, {}, {});           \
  }

#define GRADFLOW_RESIDUAL_OP_KERNELS_IN(Op, residual, S, s)                                          \
  GRADFLOW_RESIDUAL_FORWARD_KERNEL(Op, residual, S, s)                                               \
  extern "C" __global__ void __launch_bounds__(kBlockThreads)                                        \
      residual##_backward_##s(const S* y, const S* dy, GradientOut<S> skip, GradientOut<S> branch,   \
                              const Gates* gates, double scale, std::size_t n, bool vector) {        \
    residual_backward<ops::Op, S, 0>({}, y, dy, skip, branch, gates, scale, n, vector, {}, {}); \
  }

// Measured in the same pass: the branch, the sum, the output; or dy, the branch's gradient, the sum's.
#define GRADFLOW_RESIDUAL_KERNELS(S, s)                                                                   \
  GRADFLOW_RESIDUAL_FORWARD_KERNEL(Identity, residual, S, s)                                              \
  extern "C" __global__ void __launch_bounds__(kBlockThreads)                                             \
      residual_backward_##s(const S* dy, GradientOut<S> skip, GradientOut<S> branch, const Gates* gates,  \
                            double scale, std::size_t n, bool vector) {                                   \
    residual_backward<ops::Identity, S, 0>({}, nullptr, dy, skip, branch, gates, scale, n, vector, {}, {});   \
  }                                                                                                       \
  extern "C" __global__ void __launch_bounds__(kBlockThreads)                                             \
      residual_forward_stats_##s(PointwiseId op, const S* skip, const S* branch, S* y, const Gates* gates, \
                                 double scale, std::size_t n, bool vector, Sinks branch_sinks,            \
                                 Sinks sum_sinks, Sinks y_sinks, ReductionScratch scratch) {              \
    residual_forward<OutputOp, S, 3>({op}, skip, branch, y, gates, scale, n, vector,                      \
                                     {{branch_sinks, sum_sinks, y_sinks}, {}, {}}, scratch);              \
  }                                                                                                       \
  extern "C" __global__ void __launch_bounds__(kBlockThreads)                                             \
      residual_backward_stats_##s(PointwiseId op, const S* y, const S* dy, GradientOut<S> skip,           \
                                  GradientOut<S> branch, const Gates* gates, double scale, std::size_t n, \
                                  bool vector, Sinks dy_sinks, Sinks dbranch_sinks, Sinks dsum_sinks,     \
                                  ReductionScratch scratch) {                                             \
    residual_backward<OutputOp, S, 3>({op}, y, dy, skip, branch, gates, scale, n, vector,                 \
                                      {{dy_sinks, dbranch_sinks, dsum_sinks}, {}, {}}, scratch);          \
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
