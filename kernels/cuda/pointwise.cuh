// Pointwise layers: one template for each direction, one pair of named kernels for each op and storage.
//   <op>_forward_f32, <op>_forward_stats_f32, <op>_backward_f32, <op>_backward_stats_f32, and so on in bf16
// Bytes moved per element in f32: forward 8; backward 12, or 16 when it accumulates. Half of that in bf16.
// The kernels with statistics also count exponents where they are given bins.
#pragma once

#include "kernels/cuda/measured.cuh"

namespace gradflow::kernels::cuda {

template <class Op, class S, int kMeasured>
struct PointwiseForwardBody {
  static constexpr int kWidth = kPackOf<S>;
  const S* x;
  S* y;
  Measured<kMeasured> measured;

  template <int W>
  __device__ Pack<W> load(std::size_t i) const {
    return load_pack<W>(x + i);
  }

  template <int W>
  __device__ void store(std::size_t i, const Pack<W>& in) {
    Pack<W> out;
#pragma unroll
    for (int k = 0; k < W; ++k) out.v[k] = Op::template forward<Math>(in.v[k]);
    measured.add(0, in);
    measured.template add<Op>(1, as_stored<S>(out));
    store_pack(y + i, out);
  }
};

template <class Op, class S, int kMeasured>
__device__ inline void pointwise_forward(const S* x, S* y, std::size_t n, bool vector,
                                         const Measured<kMeasured>& measured, const ReductionScratch& scratch) {
  PointwiseForwardBody<Op, S, kMeasured> body{x, y, measured};
  body.measured.begin();
  stream_over<kMeasured == 0 ? kInFlight : kMeasuredInFlight<S>>(n, vector, body);
  body.measured.finish(n, scratch);
}

template <class Op, class S, int kMeasured>
struct PointwiseBackwardBody {
  static constexpr int kWidth = kPackOf<S>;
  const S* saved;
  const S* dy;
  S* dx;
  bool accumulate;
  Measured<kMeasured> measured;

  template <int W>
  struct Loaded {
    Pack<W> saved, dy, dx;
  };

  template <int W>
  __device__ Loaded<W> load(std::size_t i) const {
    Loaded<W> in;
    in.saved = load_pack<W>(saved + i);
    in.dy = load_pack<W>(dy + i);
    if (accumulate) in.dx = load_pack<W>(dx + i);
    return in;
  }

  template <int W>
  __device__ void store(std::size_t i, const Loaded<W>& in) {
    Pack<W> out;
#pragma unroll
    for (int k = 0; k < W; ++k) {
      const float g = Op::template backward<Math>(in.saved.v[k], in.dy.v[k]);
      out.v[k] = accumulate ? in.dx.v[k] + g : g;
    }
    measured.add(0, in.dy);
    measured.add(1, as_stored<S>(out));
    store_pack(dx + i, out);
  }
};

template <class Op, class S, int kMeasured>
__device__ inline void pointwise_backward(const S* saved, const S* dy, S* dx, std::size_t n, bool vector,
                                          bool accumulate, const Measured<kMeasured>& measured,
                                          const ReductionScratch& scratch) {
  PointwiseBackwardBody<Op, S, kMeasured> body{saved, dy, dx, accumulate, measured};
  body.measured.begin();
  stream_over<kMeasured == 0 ? 2 : kMeasuredInFlight<S>>(n, vector, body);
  body.measured.finish(n, scratch);
}

// The four kernels of one op and storage, under names a profiler shows as they are.
#define GRADFLOW_POINTWISE_KERNELS_IN(Op, op, S, s)                                                        \
  extern "C" __global__ void __launch_bounds__(kBlockThreads)                                              \
      op##_forward_##s(const S* x, S* y, std::size_t n, bool vector) {                                     \
    pointwise_forward<ops::Op, S, 0>(x, y, n, vector, {}, {});                                             \
  }                                                                                                        \
  extern "C" __global__ void __launch_bounds__(kBlockThreads, 3)                                           \
      op##_forward_stats_##s(const S* x, S* y, std::size_t n, bool vector, Sinks x_sinks, Sinks y_sinks,   \
                             ReductionScratch scratch) {                                                   \
    pointwise_forward<ops::Op, S, 2>(x, y, n, vector, {{x_sinks, y_sinks}, {}, {}}, scratch);              \
  }                                                                                                        \
  extern "C" __global__ void __launch_bounds__(kBlockThreads)                                              \
      op##_backward_##s(const S* saved, const S* dy, S* dx, std::size_t n, bool vector, bool accumulate) { \
    pointwise_backward<ops::Op, S, 0>(saved, dy, dx, n, vector, accumulate, {}, {});                       \
  }                                                                                                        \
  extern "C" __global__ void __launch_bounds__(kBlockThreads, 3)                                           \
      op##_backward_stats_##s(const S* saved, const S* dy, S* dx, std::size_t n, bool vector,              \
                              bool accumulate, Sinks dy_sinks, Sinks dx_sinks, ReductionScratch scratch) { \
    pointwise_backward<ops::Op, S, 2>(saved, dy, dx, n, vector, accumulate,                                \
                                      {{dy_sinks, dx_sinks}, {}, {}}, scratch);                            \
  }
#define GRADFLOW_POINTWISE_KERNELS(Op, op)           \
  GRADFLOW_POINTWISE_KERNELS_IN(Op, op, float, f32) \
  GRADFLOW_POINTWISE_KERNELS_IN(Op, op, Bf16, bf16)

GRADFLOW_POINTWISE_OPS(GRADFLOW_POINTWISE_KERNELS)

#undef GRADFLOW_POINTWISE_KERNELS
#undef GRADFLOW_POINTWISE_KERNELS_IN

}  // namespace gradflow::kernels::cuda
