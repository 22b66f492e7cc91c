// The histogram over binary exponents (stats.h) as a block counts it: in shared memory, a copy for each warp, which
// keeps most of the contention apart. Integers: the order of the atomics changes no bit.
//
//   const BlockHistograms<2> counts;
//   counts.clear();                      // every thread of the block
//   counts.add(0, pack), counts.add(1, pack);
//   counts.flush(0, bins), counts.flush(1, nullptr);  // every thread; null: nobody asked for this one
//
// 32-bit counters in a warp's copy hold 2^32 elements, so 2^45 on a device of 1024 blocks.
#pragma once

#include "gradflow/kernels/stats.h"
#include "kernels/cuda/queue.h"
#include "kernels/cuda/reduce.cuh"
#include "kernels/cuda/simt.h"
#include "kernels/cuda/storage.cuh"

namespace gradflow::kernels::cuda {

// Without a branch: 0 for zero, then the position of a denormal's highest bit, then the biased exponent, whose
// largest is infinity's, and NaN behind that.
__device__ inline unsigned exponent_bin(float x) {
  const unsigned bits = __float_as_uint(x) & 0x7fffffffu;
  const unsigned below_normal = 32u - static_cast<unsigned>(__clz(static_cast<int>(bits)));
  const unsigned normal = (bits >> 23) + 23u + (bits > 0x7f800000u);
  return bits < 0x00800000u ? below_normal : normal;
}
static_assert(kZeroBin == 0 && kMinExponent == -149 && 255 + 23 == kInfinityBin && kNanBin == kInfinityBin + 1);

// K histograms at a time; threads are numbered as Place says.
template <int K, class Place = AlongX>
class BlockHistograms {
 public:
  __device__ BlockHistograms() : counts_(shared() + Place::thread() / 32 * kExponentBins) {}

  __device__ void clear() const {
    for (unsigned i = Place::thread(); i < K * kOne; i += Place::threads()) shared()[i] = 0;
    __syncthreads();
  }

  template <int W>
  __device__ void add(int which, const Pack<W>& pack) const {
#pragma unroll
    for (int k = 0; k < W; ++k) atomicAdd(&counts_[which * kOne + exponent_bin(pack.v[k])], 1u);
  }

  __device__ void flush(int which, unsigned long long* bins) const {
    if (bins == nullptr) return;
    __syncthreads();
    for (unsigned bin = Place::thread(); bin < kExponentBins; bin += Place::threads()) {
      unsigned long long total = 0;
      for (unsigned w = 0; w < kWarps; ++w) total += shared()[which * kOne + w * kExponentBins + bin];
      if (total != 0) atomicAdd(&bins[bin], total);
    }
  }

 private:
  static constexpr unsigned kWarps = kBlockThreads / 32;
  static constexpr unsigned kOne = kWarps * kExponentBins;

  static __device__ unsigned* shared() {
    SIMT_SHARED(unsigned, counts, [K * kOne]);
    return counts;
  }

  unsigned* counts_;  // of this thread's warp
};

}  // namespace gradflow::kernels::cuda
