// StatsLanes: the inner loop of all statistics.
//
// One object accumulates the statistics of a chunk; result() closes it. The loop is separate from the
// operation whose output it measures and runs over a tile that is still in the L1 cache: so passing a sink
// cannot change what the operation computes, and every operation shares this one loop.
//
// The sums run in 16 lanes, element i of a tile in lane i % 16, so that additions overlap. A product of two
// f32 numbers is exact in f64, hence fused and separate multiply-add agree, and for f32 the AVX-512 loop
// (stats_avx512.h) and the portable one give the same bits.
//
// Denormal and non-finite numbers are rare: the main loop only notices that a tile has some, by integer
// arithmetic on the bits of |x|, and a second pass over that tile counts them.
#pragma once

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <type_traits>

#include "gradflow/kernels/stats.h"

namespace gradflow::kernels::cpu {

inline constexpr std::size_t kStatsLanes = 16;
inline constexpr std::size_t kMaxStatsTile = 2048;  // counters of one tile fit in 32 bits, see stats_avx512.h

template <class T>
using BitsOf = std::conditional_t<sizeof(T) == 4, std::uint32_t, std::uint64_t>;

template <class T>
BitsOf<T> magnitude_bits(T x) {
  return std::bit_cast<BitsOf<T>>(x) & (~BitsOf<T>{0} >> 1);
}

template <class T>
struct alignas(64) LaneSums {
  double sum[kStatsLanes] = {};
  double squares[kStatsLanes] = {};
  BitsOf<T> nonzeros[kStatsLanes] = {};
  BitsOf<T> max[kStatsLanes] = {};
};

struct RareNumbers {  // whether a tile has any
  bool denormals = false, nonfinite = false;
};

// Adds x[0, n) to the lanes. `normal` are the bits of the smallest number that counts as normal.
template <class T>
RareNumbers scan(const T* x, std::size_t n, BitsOf<T> normal, LaneSums<T>& lanes) {
  using Bits = BitsOf<T>;
  LaneSums<T> local = lanes;
  std::size_t i = 0;
  for (; i + kStatsLanes <= n; i += kStatsLanes)
    for (std::size_t l = 0; l < kStatsLanes; ++l) {
      const double v = static_cast<double>(x[i + l]);
      local.sum[l] += v;
      local.squares[l] += v * v;
    }
  for (std::size_t l = 0; i + l < n; ++l) {
    const double v = static_cast<double>(x[i + l]);
    local.sum[l] += v;
    local.squares[l] += v * v;
  }
  Bits max = 0, nonzeros = 0, denormals = 0;
  for (std::size_t j = 0; j < n; ++j) {
    const Bits b = magnitude_bits(x[j]);
    max = std::max(max, b);
    nonzeros += std::min(b, Bits{1});
    denormals |= Bits{b - 1 < normal - 1};  // 0 - 1 wraps to the largest number
  }
  local.nonzeros[0] += nonzeros;
  local.max[0] = std::max(local.max[0], max);
  lanes = local;
  return {denormals != 0, max >= std::bit_cast<Bits>(std::numeric_limits<T>::infinity())};
}

}  // namespace gradflow::kernels::cpu

#ifdef __AVX512F__
#include "stats_avx512.h"
#endif

namespace gradflow::kernels::cpu {

template <class T>
class StatsLanes {
 public:
  // Values below `smallest_normal` in size count as denormal. A difference of f32 numbers is formed in f64
  // but judged by f32's limit.
  explicit StatsLanes(T smallest_normal = std::numeric_limits<T>::min())
      : normal_(std::bit_cast<Bits>(smallest_normal)) {}

  void add(const T* x, std::size_t n);  // n <= kMaxStatsTile
  void add_saturated(std::uint64_t count) { saturated_ += count; }
  Stats result() const;

 private:
  using Bits = BitsOf<T>;
  static constexpr Bits kInfinity = std::bit_cast<Bits>(std::numeric_limits<T>::infinity());

  LaneSums<T> lanes_;
  std::uint64_t count_ = 0, denormals_ = 0, nonfinite_ = 0, saturated_ = 0;
  Bits normal_;
};

template <class T>
void StatsLanes<T>::add(const T* x, std::size_t n) {
  RareNumbers rare;
  std::size_t done = 0;
#ifdef __AVX512F__
  done = n / kStatsBlock * kStatsBlock;
  rare = scan_blocks(x, done, normal_, lanes_);
#endif
  if (done < n) {
    const RareNumbers rest = scan(x + done, n - done, normal_, lanes_);
    rare = {rare.denormals || rest.denormals, rare.nonfinite || rest.nonfinite};
  }
  count_ += n;
  if (rare.denormals)
    for (std::size_t i = 0; i < n; ++i) denormals_ += magnitude_bits(x[i]) - 1 < normal_ - 1;
  if (rare.nonfinite)
    for (std::size_t i = 0; i < n; ++i) nonfinite_ += magnitude_bits(x[i]) >= kInfinity;
}

template <class T>
Stats StatsLanes<T>::result() const {
  Stats s;
  double sum[4], squares[4];
  for (std::size_t l = 0; l < 4; ++l) {
    const double* a = lanes_.sum + l;
    const double* b = lanes_.squares + l;
    sum[l] = (a[0] + a[4]) + (a[8] + a[12]);
    squares[l] = (b[0] + b[4]) + (b[8] + b[12]);
  }
  s.sum = (sum[0] + sum[1]) + (sum[2] + sum[3]);
  s.sum_squares = (squares[0] + squares[1]) + (squares[2] + squares[3]);
  Bits max = 0;
  std::uint64_t nonzeros = 0;
  for (std::size_t l = 0; l < kStatsLanes; ++l) {
    max = std::max(max, lanes_.max[l]);
    nonzeros += lanes_.nonzeros[l];
  }
  s.count = count_;
  s.zeros = count_ - nonzeros;
  s.denormals = denormals_;
  s.nonfinite = nonfinite_;
  s.saturated = saturated_;
  s.max_abs_bits = std::bit_cast<std::uint64_t>(static_cast<double>(std::bit_cast<T>(max)));
  return s;
}

inline void add(Stats& to, const Stats& part) {
  to.sum += part.sum;
  to.sum_squares += part.sum_squares;
  to.count += part.count;
  to.zeros += part.zeros;
  to.denormals += part.denormals;
  to.nonfinite += part.nonfinite;
  to.saturated += part.saturated;
  to.max_abs_bits = std::max(to.max_abs_bits, part.max_abs_bits);
}

// How many outputs of Op are saturated; n is a tile.
template <class Op, class T>
std::uint64_t count_saturated(const T* y, std::size_t n) {
  if constexpr (!Op::saturates) {
    return 0;
  } else {
    std::uint32_t count = 0;
    for (std::size_t i = 0; i < n; ++i) count += Op::saturated(y[i]);
    return count;
  }
}

}  // namespace gradflow::kernels::cpu
