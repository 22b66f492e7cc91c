// Statistics that stand alone: of one array, of a difference, and the histogram over binary exponents.
// Each reads its input once: 4 bytes an element, 8 for a difference; half of that in bf16.
#pragma once

#include <cstdint>

#include "kernels/cuda/exponents.cuh"
#include "kernels/cuda/stats.cuh"
#include "kernels/cuda/stream.cuh"

namespace gradflow::kernels::cuda {

// Counts saturated outputs for the ops that can saturate; all others share linear_stats.
template <class Op, class S>
struct StatsBody {
  static constexpr int kWidth = kPackOf<S>;
  const S* x;
  StatsOfFloats seen;

  template <int W>
  __device__ Pack<W> load(std::size_t i) const {
    return load_pack<W>(x + i);
  }
  template <int W>
  __device__ void store(std::size_t, const Pack<W>& in) {
    seen.add(in);
    seen.template add_saturated<Op>(in);
  }
};

template <class Op, class S>
__device__ inline void stats_of(const S* x, std::size_t n, bool vector, Stats* out,
                                const ReductionScratch& scratch) {
  StatsBody<Op, S> body{x, {}};
  stream_over<2>(n, vector, body);
  StatsPartial seen = body.seen.partial();
  if (grid_reduce(seen, scratch)) seen.add_to(out, n);
}

#define GRADFLOW_STATS_KERNEL_IN(Op, op, S, s)                                                       \
  extern "C" __global__ void __launch_bounds__(kBlockThreads, 5)                                     \
      op##_stats_##s(const S* x, std::size_t n, bool vector, Stats* out, ReductionScratch scratch) { \
    stats_of<ops::Op>(x, n, vector, out, scratch);                                                   \
  }
#define GRADFLOW_STATS_KERNELS(Op, op)         \
  GRADFLOW_STATS_KERNEL_IN(Op, op, float, f32) \
  GRADFLOW_STATS_KERNEL_IN(Op, op, Bf16, bf16)
GRADFLOW_STATS_KERNELS(Identity, linear)
GRADFLOW_SATURATING_OPS(GRADFLOW_STATS_KERNELS)
#undef GRADFLOW_STATS_KERNELS
#undef GRADFLOW_STATS_KERNEL_IN

// Statistics of a - b, formed in f64, and the sum of b * (a - b).
struct DifferencePartial {
  StatsPartial difference;
  double dot;

  __device__ void merge(const DifferencePartial& other) {
    difference.merge(other.difference);
    dot += other.dot;
  }
  __device__ DifferencePartial from_lane(int offset) const {
    return {difference.from_lane(offset), __shfl_down_sync(kAllLanes, dot, offset)};
  }
};

template <class S>
struct DifferenceBody {
  static constexpr int kWidth = kPackOf<S>;
  const S* a;
  const S* b;
  StatsOfDoubles seen;
  double dot;

  template <int W>
  struct Loaded {
    Pack<W> a, b;
  };
  template <int W>
  __device__ Loaded<W> load(std::size_t i) const {
    return {load_pack<W>(a + i), load_pack<W>(b + i)};
  }
  template <int W>
  __device__ void store(std::size_t, const Loaded<W>& in) {
#pragma unroll
    for (int k = 0; k < W; ++k) {
      const double from_b = in.b.v[k];
      const double d = static_cast<double>(in.a.v[k]) - from_b;
      seen.add(d);
      dot = fma(from_b, d, dot);
    }
  }
};

template <class S>
__device__ inline void difference_stats(const S* a, const S* b, std::size_t n, bool vector, Stats* difference,
                                        double* dot, const ReductionScratch& scratch) {
  DifferenceBody<S> body{a, b, {}, 0.0};
  stream_over<2>(n, vector, body);
  DifferencePartial seen{body.seen.partial(), body.dot};
  if (grid_reduce(seen, scratch)) {
    seen.difference.add_to(difference, n);
    if (dot != nullptr) *dot += seen.dot;
  }
}

template <class S>
struct HistogramBody {
  static constexpr int kWidth = kPackOf<S>;
  const S* x;
  BlockHistograms<1> counts;

  template <int W>
  __device__ Pack<W> load(std::size_t i) const {
    return load_pack<W>(x + i);
  }
  template <int W>
  __device__ void store(std::size_t, const Pack<W>& in) {
    counts.add(0, in);
  }
};

template <class S>
__device__ inline void exponent_histogram(const S* x, std::size_t n, bool vector, unsigned long long* bins) {
  HistogramBody<S> body{x, {}};
  body.counts.clear();
  stream_over<2>(n, vector, body);
  body.counts.flush(0, bins);
}

#define GRADFLOW_PROBE_KERNELS(S, s)                                                                      \
  extern "C" __global__ void __launch_bounds__(kBlockThreads, 4)                                          \
      difference_stats_##s(const S* a, const S* b, std::size_t n, bool vector, Stats* difference,         \
                           double* dot, ReductionScratch scratch) {                                       \
    difference_stats(a, b, n, vector, difference, dot, scratch);                                          \
  }                                                                                                       \
  extern "C" __global__ void __launch_bounds__(kBlockThreads)                                             \
      exponent_histogram_##s(const S* x, std::size_t n, bool vector, unsigned long long* bins) {          \
    exponent_histogram(x, n, vector, bins);                                                               \
  }

GRADFLOW_PROBE_KERNELS(float, f32)
GRADFLOW_PROBE_KERNELS(Bf16, bf16)

#undef GRADFLOW_PROBE_KERNELS

}  // namespace gradflow::kernels::cuda
