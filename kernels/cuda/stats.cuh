// Statistics in registers: what a thread has seen, how two of them merge, how a total enters a sink.
#pragma once

#include <cstddef>
#include <cstdint>

#include "gradflow/kernels/stats.h"
#include "kernels/cuda/reduce.cuh"
#include "kernels/cuda/simt.h"

namespace gradflow::kernels::cuda {

using u64 = unsigned long long;

// The bits of |x| as a double, for x given as the bits of |x| in f32; NaN stays above infinity.
__device__ inline u64 widen_abs_bits(unsigned bits) {
  if (bits > 0x7f800000u) return 0x7ff8000000000000ull | (static_cast<u64>(bits & 0x7fffffu) << 29);
  return static_cast<u64>(__double_as_longlong(static_cast<double>(__uint_as_float(bits))));
}

// Trivial, so that it may lie in shared memory: StatsPartial{} is zero.
struct StatsPartial {
  double sum;
  double sum_squares;
  u64 zeros;
  u64 denormals;
  u64 nonfinite;
  u64 saturated;
  u64 max_abs_bits;

  __device__ void merge(const StatsPartial& other) {
    sum += other.sum;
    sum_squares += other.sum_squares;
    zeros += other.zeros;
    denormals += other.denormals;
    nonfinite += other.nonfinite;
    saturated += other.saturated;
    if (other.max_abs_bits > max_abs_bits) max_abs_bits = other.max_abs_bits;
  }

  __device__ StatsPartial from_lane(int offset) const {
    StatsPartial p;
    p.sum = __shfl_down_sync(kAllLanes, sum, offset);
    p.sum_squares = __shfl_down_sync(kAllLanes, sum_squares, offset);
    p.zeros = __shfl_down_sync(kAllLanes, zeros, offset);
    p.denormals = __shfl_down_sync(kAllLanes, denormals, offset);
    p.nonfinite = __shfl_down_sync(kAllLanes, nonfinite, offset);
    p.saturated = __shfl_down_sync(kAllLanes, saturated, offset);
    p.max_abs_bits = __shfl_down_sync(kAllLanes, max_abs_bits, offset);
    return p;
  }

  // One thread of the grid does this, so a sink is never contended.
  __device__ void add_to(Stats* sink, std::size_t count) const {
    if (sink == nullptr) return;
    sink->sum += sum;
    sink->sum_squares += sum_squares;
    sink->count += count;
    sink->zeros += zeros;
    sink->denormals += denormals;
    sink->nonfinite += nonfinite;
    sink->saturated += saturated;
    if (max_abs_bits > sink->max_abs_bits) sink->max_abs_bits = max_abs_bits;
  }
};

// Statistics of f32 values as one thread meets them. Counters are 32 bits: a thread of a grid that fills
// the device would need 2^32 elements of its own (2^50 in all) to overflow one.
struct StatsOfFloats {
  double sum;
  double sum_squares;
  unsigned zeros;
  unsigned denormals;
  unsigned nonfinite;
  unsigned saturated;
  unsigned max_bits;

  __device__ void add(float x, bool is_saturated = false) {
    const double wide = x;
    const unsigned bits = __float_as_uint(x) & 0x7fffffffu;
    sum += wide;
    sum_squares = fma(wide, wide, sum_squares);
    zeros += bits == 0;
    denormals += bits - 1 < 0x007fffffu;
    nonfinite += bits >= 0x7f800000u;
    saturated += is_saturated;
    max_bits = bits > max_bits ? bits : max_bits;
  }

  __device__ StatsPartial partial() const {
    return {sum, sum_squares, zeros, denormals, nonfinite, saturated, widen_abs_bits(max_bits)};
  }
};

// The same for values formed in f64 from f32 data, such as the difference of two f32 numbers. "Denormal"
// stays what f32 storage calls so.
struct StatsOfDoubles {
  StatsPartial seen;

  __device__ void add(double x) {
    const u64 bits = static_cast<u64>(__double_as_longlong(x)) & 0x7fffffffffffffffull;
    constexpr u64 kSmallestNormal = 0x3810000000000000ull;  // 2^-126 as a double
    constexpr u64 kInfinity = 0x7ff0000000000000ull;
    seen.sum += x;
    seen.sum_squares = fma(x, x, seen.sum_squares);
    seen.zeros += bits == 0;
    seen.denormals += bits - 1 < kSmallestNormal - 1;
    seen.nonfinite += bits >= kInfinity;
    if (bits > seen.max_abs_bits) seen.max_abs_bits = bits;
  }

  __device__ StatsPartial partial() const { return seen; }
};

// Several partials that travel through one reduction.
template <int K>
struct StatsSet {
  StatsPartial of[K];

  __device__ void merge(const StatsSet& other) {
#pragma unroll
    for (int k = 0; k < K; ++k) of[k].merge(other.of[k]);
  }
  __device__ StatsSet from_lane(int offset) const {
    StatsSet set;
#pragma unroll
    for (int k = 0; k < K; ++k) set.of[k] = of[k].from_lane(offset);
    return set;
  }
};

}  // namespace gradflow::kernels::cuda
