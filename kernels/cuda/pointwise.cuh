// Pointwise layers: one template for each direction, one pair of named kernels for each op and storage.
//   <op>_forward_f32, <op>_forward_stats_f32, <op>_backward_f32, <op>_backward_stats_f32, and so on in bf16
// Bytes moved per element in f32: forward 8; backward 12, or 16 when it accumulates. Half of that in bf16.
#pragma once

#include "kernels/cuda/stats.cuh"
#include "kernels/cuda/stream.cuh"

namespace gradflow::kernels::cuda {

template <class Op, class S, bool kStats>
struct PointwiseForwardBody {
  static constexpr int kWidth = kPackOf<S>;
  const S* x;
  S* y;
  StatsOfFloats seen_x, seen_y;

  template <int W>
  __device__ Pack<W> load(std::size_t i) const {
    return load_pack<W>(x + i);
  }

  template <int W>
  __device__ void store(std::size_t i, const Pack<W>& in) {
    Pack<W> out;
#pragma unroll
    for (int k = 0; k < W; ++k) {
      out.v[k] = Op::template forward<Math>(in.v[k]);
      if constexpr (kStats) {
        const float stored = as_stored<S>(out.v[k]);
        seen_x.add(in.v[k]);
        seen_y.add(stored, Op::saturated(stored));
      }
    }
    store_pack(y + i, out);
  }
};

template <class Op, class S, bool kStats>
__device__ inline void pointwise_forward(const S* x, S* y, std::size_t n, bool vector, Stats* x_stats,
                                         Stats* y_stats, const ReductionScratch& scratch) {
  PointwiseForwardBody<Op, S, kStats> body{x, y, {}, {}};
  if constexpr (kStats) {
    stream_over<1>(n, vector, body);
    StatsSet<2> seen{{body.seen_x.partial(), body.seen_y.partial()}};
    if (grid_reduce(seen, scratch)) {
      seen.of[0].add_to(x_stats, n);
      seen.of[1].add_to(y_stats, n);
    }
  } else {
    stream_over(n, vector, body);
  }
}

template <class Op, class S, bool kStats>
struct PointwiseBackwardBody {
  static constexpr int kWidth = kPackOf<S>;
  const S* saved;
  const S* dy;
  S* dx;
  bool accumulate;
  StatsOfFloats seen_dy, seen_dx;

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
      if constexpr (kStats) {
        seen_dy.add(in.dy.v[k]);
        seen_dx.add(as_stored<S>(out.v[k]));
      }
    }
    store_pack(dx + i, out);
  }
};

template <class Op, class S, bool kStats>
__device__ inline void pointwise_backward(const S* saved, const S* dy, S* dx, std::size_t n,
                                          bool vector, bool accumulate, Stats* dy_stats, Stats* dx_stats,
                                          const ReductionScratch& scratch) {
  PointwiseBackwardBody<Op, S, kStats> body{saved, dy, dx, accumulate, {}, {}};
  if constexpr (kStats) {
    stream_over<1>(n, vector, body);
    StatsSet<2> seen{{body.seen_dy.partial(), body.seen_dx.partial()}};
    if (grid_reduce(seen, scratch)) {
      seen.of[0].add_to(dy_stats, n);
      seen.of[1].add_to(dx_stats, n);
    }
  } else {
    stream_over<2>(n, vector, body);
  }
}

// The four kernels of one op and storage, under names a profiler shows as they are.
#define GRADFLOW_POINTWISE_KERNELS_IN(Op, op, S, s)                                                      \
  extern "C" __global__ void __launch_bounds__(kBlockThreads)                                            \
      op##_forward_##s(const S* x, S* y, std::size_t n, bool vector) {                                   \
    pointwise_forward<ops::Op, S, false>(x, y, n, vector, nullptr, nullptr, {});                         \
  }                                                                                                      \
  extern "C" __global__ void __launch_bounds__(kBlockThreads)                                            \
      op##_forward_stats_##s(const S* x, S* y, std::size_t n, bool vector, Stats* x_stats,               \
                             Stats* y_stats, ReductionScratch scratch) {                                 \
    pointwise_forward<ops::Op, S, true>(x, y, n, vector, x_stats, y_stats, scratch);                     \
  }                                                                                                      \
  extern "C" __global__ void __launch_bounds__(kBlockThreads)                                            \
      op##_backward_##s(const S* saved, const S* dy, S* dx, std::size_t n, bool vector, bool accumulate) { \
    pointwise_backward<ops::Op, S, false>(saved, dy, dx, n, vector, accumulate, nullptr, nullptr, {});   \
  }                                                                                                      \
  extern "C" __global__ void __launch_bounds__(kBlockThreads)                                            \
      op##_backward_stats_##s(const S* saved, const S* dy, S* dx, std::size_t n, bool vector,            \
                              bool accumulate, Stats* dy_stats, Stats* dx_stats, ReductionScratch scratch) { \
    pointwise_backward<ops::Op, S, true>(saved, dy, dx, n, vector, accumulate, dy_stats, dx_stats, scratch); \
  }
#define GRADFLOW_POINTWISE_KERNELS(Op, op)           \
  GRADFLOW_POINTWISE_KERNELS_IN(Op, op, float, f32) \
  GRADFLOW_POINTWISE_KERNELS_IN(Op, op, Bf16, bf16)

GRADFLOW_POINTWISE_OPS(GRADFLOW_POINTWISE_KERNELS)

#undef GRADFLOW_POINTWISE_KERNELS
#undef GRADFLOW_POINTWISE_KERNELS_IN

}  // namespace gradflow::kernels::cuda
