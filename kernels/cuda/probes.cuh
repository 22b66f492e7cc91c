// Statistics that stand alone: of one array, of a difference, and the histogram over binary exponents.
// Each reads its input once: 4 bytes an element, 8 for a difference; half of that in bf16.
#pragma once

#include <cstdint>

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
#pragma unroll
    for (int k = 0; k < W; ++k) seen.add(in.v[k], Op::saturated(in.v[k]));
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
  extern "C" __global__ void __launch_bounds__(kBlockThreads)                                        \
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
  stream_over<1>(n, vector, body);
  DifferencePartial seen{body.seen.partial(), body.dot};
  if (grid_reduce(seen, scratch)) {
    seen.difference.add_to(difference, n);
    if (dot != nullptr) *dot += seen.dot;
  }
}

// Index 0: zero. 1 + (e + 149) for floor(log2|x|) = e. Then infinity, then NaN; see stats.h.
__device__ inline unsigned exponent_bin(float x) {
  const unsigned bits = __float_as_uint(x) & 0x7fffffffu;
  if (bits == 0) return kZeroBin;
  if (bits >= 0x7f800000u) return bits == 0x7f800000u ? kInfinityBin : kNanBin;
  if (bits < 0x00800000u)
    return 1u + (31u - static_cast<unsigned>(__clz(static_cast<int>(bits))));  // 2^-149 * bits
  return 1u + (bits >> 23) - 127u + 149u;
}

// A histogram for each warp keeps most of the contention on shared counters apart. 32-bit counters in a
// block hold 2^32 elements, so 2^42 on a device of 1024 blocks.
inline constexpr unsigned kHistogramWarps = kBlockThreads / 32;

template <class S>
struct HistogramBody {
  static constexpr int kWidth = kPackOf<S>;
  const S* x;
  unsigned* bins;

  template <int W>
  __device__ Pack<W> load(std::size_t i) const {
    return load_pack<W>(x + i);
  }
  template <int W>
  __device__ void store(std::size_t, const Pack<W>& in) {
#pragma unroll
    for (int k = 0; k < W; ++k) atomicAdd(&bins[exponent_bin(in.v[k])], 1u);
  }
};

template <class S>
__device__ inline void exponent_histogram(const S* x, std::size_t n, bool vector, unsigned long long* bins) {
  SIMT_SHARED(unsigned, counts, [kHistogramWarps][kExponentBins]);
  for (unsigned i = threadIdx.x; i < kHistogramWarps * kExponentBins; i += blockDim.x) {
    counts[i / kExponentBins][i % kExponentBins] = 0;
  }
  __syncthreads();
  HistogramBody<S> body{x, counts[threadIdx.x / 32]};
  stream_over<2>(n, vector, body);
  __syncthreads();
  for (unsigned bin = threadIdx.x; bin < kExponentBins; bin += blockDim.x) {
    unsigned long long total = 0;
    for (unsigned w = 0; w < kHistogramWarps; ++w) total += counts[w][bin];
    if (total != 0) atomicAdd(&bins[bin], total);
  }
}

#define GRADFLOW_PROBE_KERNELS(S, s)                                                                      \
  extern "C" __global__ void __launch_bounds__(kBlockThreads)                                             \
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
