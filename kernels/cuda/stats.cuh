// Statistics in registers: what a thread has seen, how two of them merge, how a total enters a sink.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>

#include "gradflow/kernels/stats.h"
#include "kernels/cuda/reduce.cuh"
#include "kernels/cuda/simt.h"
#include "kernels/cuda/storage.cuh"

namespace gradflow::kernels::cuda {

using u64 = unsigned long long;

// The bits of x as a double, for x >= 0 or NaN, of which all are one.
__device__ inline u64 widen_bits(float x) {
  return x != x ? 0x7ff8000000000000ull : static_cast<u64>(__double_as_longlong(static_cast<double>(x)));
}

// Trivial, so that it may lie in shared memory: StatsPartial{} is zero.
struct StatsPartial {
  double sum;
  double sum_squares;
  u64 zeros;
  u64 denormals;
  u64 finite;
  u64 saturated;
  u64 max_abs_bits;

  __device__ void merge(const StatsPartial& other) {
    sum += other.sum;
    sum_squares += other.sum_squares;
    zeros += other.zeros;
    denormals += other.denormals;
    finite += other.finite;
    saturated += other.saturated;
    if (other.max_abs_bits > max_abs_bits) max_abs_bits = other.max_abs_bits;
  }

  __device__ StatsPartial from_lane(int offset) const {
    StatsPartial p;
    p.sum = __shfl_down_sync(kAllLanes, sum, offset);
    p.sum_squares = __shfl_down_sync(kAllLanes, sum_squares, offset);
    p.zeros = __shfl_down_sync(kAllLanes, zeros, offset);
    p.denormals = __shfl_down_sync(kAllLanes, denormals, offset);
    p.finite = __shfl_down_sync(kAllLanes, finite, offset);
    p.saturated = __shfl_down_sync(kAllLanes, saturated, offset);
    p.max_abs_bits = __shfl_down_sync(kAllLanes, max_abs_bits, offset);
    return p;
  }

  // `count`: of all elements seen. One thread of the grid does this, so a sink is never contended.
  __device__ void add_to(Stats* sink, std::size_t count) const {
    if (sink == nullptr) return;
    sink->sum += sum;
    sink->sum_squares += sum_squares;
    sink->count += count;
    sink->zeros += zeros;
    sink->denormals += denormals;
    sink->nonfinite += count - finite;
    sink->saturated += saturated;
    if (max_abs_bits > sink->max_abs_bits) sink->max_abs_bits = max_abs_bits;
  }
};

// 1 if a < b, else 0; both below 2^31. 1 if |x| < b, else 0, also for NaN. A comparison would take three instructions to
// count by, this takes two: a subtraction, and an addition of the sign. Integer instructions, not memory, bound the
// statistics of bf16, so what can be is subtracted as floats, by units that have nothing else to do.
__device__ inline unsigned below(unsigned a, unsigned b) { return (a - b) >> 31; }
__device__ inline unsigned magnitude_below(float x, float b) {
#ifdef __CUDA_ARCH__
  // CUDA's guide: every NaN that an operation gives is 0x7fffffff. Those of x86 may have a sign.
  return __float_as_uint(fabsf(x) - b) >> 31;
#else
  return fabsf(x) < b;
#endif
}

// 1 if x is neither infinite nor NaN, else 0: also |x| - infinity is -infinity or NaN.
__device__ inline unsigned is_finite(float x) { return magnitude_below(x, __uint_as_float(0x7f800000u)); }

// Statistics of f32 values as one thread meets them. Counters are 32 bits: a thread of a grid that fills
// the device would need 2^32 elements of its own (2^50 in all) to overflow one.
struct StatsOfFloats {
  double sum;
  double sum_squares;
  unsigned zeros;
  unsigned below_normal;  // zeros and denormals
  unsigned finite;
  unsigned saturated;
  float max_abs;

  template <int W>
  __device__ void add(const Pack<W>& pack) {
#pragma unroll
    for (int k = 0; k < W; ++k) {
      const double wide = pack.v[k];
      sum += wide;
      sum_squares = fma(wide, wide, sum_squares);
      zeros += magnitude_below(pack.v[k], 0x1p-149f);
      below_normal += magnitude_below(pack.v[k], 0x1p-126f);
      finite += is_finite(pack.v[k]);
      max_abs = max_or_nan(max_abs, fabsf(pack.v[k]));
    }
  }

  // Beside add(), of outputs of an op that saturates.
  template <class Op, int W>
  __device__ void add_saturated(const Pack<W>& pack) {
    if constexpr (Op::saturates) {
#pragma unroll
      for (int k = 0; k < W; ++k) saturated += Op::saturated(pack.v[k]);
    }
  }

  __device__ StatsPartial partial() const {
    return {sum, sum_squares, zeros, below_normal - zeros, finite, saturated, widen_bits(max_abs)};
  }
};

// The same for values formed in f64 from f32 data, such as the difference of two f32 numbers. "Denormal"
// stays what f32 storage calls so.
struct StatsOfDoubles {
  double sum;
  double sum_squares;
  unsigned zeros;
  unsigned below_normal;
  unsigned finite;
  u64 max_bits;

  __device__ void add(double x) {
    const u64 bits = static_cast<u64>(__double_as_longlong(x)) & 0x7fffffffffffffffull;
    const auto upper = static_cast<unsigned>(bits >> 32);
    sum += x;
    sum_squares = fma(x, x, sum_squares);
    zeros += x == 0.0;
    below_normal += below(upper, 0x38100000u);  // 2^-126
    finite += below(upper, 0x7ff00000u);
    if (bits > max_bits) max_bits = bits;
  }

  __device__ StatsPartial partial() const {
    return {sum, sum_squares, zeros, below_normal - zeros, finite, 0, max_bits};
  }
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
