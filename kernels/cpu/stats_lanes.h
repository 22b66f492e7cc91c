// StatsLanes: the inner loop of all statistics.
//
// One object accumulates the statistics of a chunk; result() closes it. The loop is separate from the
// operation whose output it measures and runs over a tile that is still in the L1 cache: so passing a sink
// cannot change what the operation computes, and every operation shares this one loop. Operations that mostly
// wait for memory measure in registers instead, where it costs least: they fill BlockRegisters themselves.
//
// The f64 sums run in 16 lanes, element i of a tile in lane i % 16, so that additions overlap. f32 numbers
// come by blocks that stats_block.h sums in f32 first.
//
// Zeros, denormal and non-finite numbers are rare: the main loop only notices that a block has some, by
// integer arithmetic on the bits of |x|, and a second pass over that block counts them.
#pragma once

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <type_traits>

#include "gradflow/kernels/stats.h"
#include "stats_block.h"

namespace gradflow::kernels::cpu {

template <class T>
using BitsOf = std::conditional_t<sizeof(T) == 4, std::uint32_t, std::uint64_t>;

template <class T>
BitsOf<T> magnitude_bits(T x) {
  return std::bit_cast<BitsOf<T>>(x) & (~BitsOf<T>{0} >> 1);
}

inline constexpr int kAccumulators = 4;
inline constexpr std::size_t kRow = kAccumulators * kVector;

template <class T>
class StatsLanes {
 public:
  // Values below `smallest_normal` in size count as denormal. A difference of f32 numbers is formed in f64
  // but judged by f32's limit.
  explicit StatsLanes(T smallest_normal = std::numeric_limits<T>::min())
      : normal_(std::bit_cast<Bits>(smallest_normal)) {}

  void add(const T* x, std::size_t n);  // a tile: n < 2^32
  // Takes over a block that was summed in registers. numbers() gives its n numbers, should they be needed
  // again.
  template <class F>
  void add_block(const BlockSums& block, std::size_t n, const F& numbers);
  void add_block(const BlockSums& block, const T* x, std::size_t n) {
    add_block(block, n, [x] { return x; });
  }
  bool expects_zeros() const { return expect_zeros_; }  // a block that counts would pay
  void add_saturated(std::uint64_t count) { saturated_ += count; }
  Stats result() const;

 private:
  using Bits = BitsOf<T>;
  static constexpr Bits kInfinity = std::bit_cast<Bits>(std::numeric_limits<T>::infinity());

  template <Small small>
  std::size_t add_front(const T* x, std::size_t n);
  void add_exactly(const T* x, std::size_t n);
  void count_rare(const T* x, std::size_t n, bool small, bool nonfinite);

  Lanes sum_, squares_;
  std::uint64_t count_ = 0, zeros_ = 0, denormals_ = 0, nonfinite_ = 0, saturated_ = 0;
  Bits max_ = 0;
  Words block_max_ = {};  // of the blocks, by lane
  Bits normal_;
  bool expect_zeros_ = false;  // the last block had some
};

template <class T>
void StatsLanes<T>::add(const T* x, std::size_t n) {
  if constexpr (std::is_same_v<T, float>)
    while (n >= kRow) {
      const std::size_t done =
          expect_zeros_ ? add_front<Small::counted>(x, n) : add_front<Small::noticed>(x, n);
      x += done;
      n -= done;
    }
  if (n == 0) return;
  add_exactly(x, n);
  Bits min = ~Bits{0}, max = 0;
  for (std::size_t i = 0; i < n; ++i) {
    const Bits b = magnitude_bits(x[i]);
    min = std::min(min, b);
    max = std::max(max, b);
  }
  max_ = std::max(max_, max);
  count_rare(x, n, min < normal_, max >= kInfinity);
  count_ += n;
}

// One block from the front of x[0, n), n >= kRow. Returns how many numbers it took.
template <class T>
template <Small small>
std::size_t StatsLanes<T>::add_front(const T* x, std::size_t n) {
  BlockRegisters<kAccumulators, small> block;
  const std::size_t length = std::min(n / kRow * kRow, kBlock);
  for_each_vector(
      length, [&](std::size_t i, int j) __attribute__((always_inline)) { block.add(load(x + i), j); }, block);
  add_block(block.sums(), x, length);
  return length;
}

template <class T>
template <class F>
void StatsLanes<T>::add_block(const BlockSums& block, std::size_t n, const F& numbers) {
  static_assert(std::is_same_v<T, float>);
  const Floats sum = block.sum, squares = block.squares;
  // Judged lane by lane, which saves adding up the lanes of every block. Below 2^-80 the squares that f32
  // rounds to a denormal or to zero might matter; above 2^120 a sum might overflow. NaN fails every
  // comparison.
  const float terms = static_cast<float>(n / kVector);
  const auto in_range = ((squares >= 0x1p-80f) & (squares <= 0x1p120f)) | (block.max == 0);
  const auto centered = sum * sum <= 0.5f * terms * squares;
  bool nonfinite = false;
  if (any(reinterpret_cast<Words>(~(in_range & centered)))) {
    add_exactly(numbers(), n);
    nonfinite = block.infinite() || any(reinterpret_cast<Words>(squares != squares));
  } else {
    sum_.add(sum);
    squares_.add(squares);
  }
  count_ += n;
  block_max_ = larger(block_max_, block.max);
  const bool rare =
      nonfinite || any(block.rare());  // a signaling NaN ends the search for the smallest so far
  if (block.counts) {
    if (!rare) {
      const std::uint64_t zeros = n - block.nonzeros.total();
      zeros_ += zeros;
      expect_zeros_ = zeros > 0;
    }
  } else {
    expect_zeros_ = rare;
  }
  if (rare || nonfinite) count_rare(numbers(), n, rare, nonfinite);
}

// Each number and its square in f64.
template <class T>
void StatsLanes<T>::add_exactly(const T* x, std::size_t n) {
  Lanes sum = sum_, squares = squares_;
  std::size_t i = 0;
  for (; i + kVector <= n; i += kVector) {
    sum.add(x + i);
    squares.add_squares(x + i);
  }
  if (i < n) {
    T rest[kVector] = {};
    std::copy(x + i, x + n, rest);
    sum.add(rest);
    squares.add_squares(rest);
  }
  sum_ = sum;
  squares_ = squares;
}

// `small`: there may be zeros and denormals; `nonfinite`: there may be infinities and NaN.
template <class T>
void StatsLanes<T>::count_rare(const T* x, std::size_t n, bool small, bool nonfinite) {
  if (small) {
    Bits zeros = 0, below_normal = 0;
    for (std::size_t i = 0; i < n; ++i) {
      const Bits b = magnitude_bits(x[i]);
      zeros += b == 0;
      below_normal += b < normal_;
    }
    zeros_ += zeros;
    denormals_ += below_normal - zeros;
  }
  if (nonfinite)
    for (std::size_t i = 0; i < n; ++i) {
      nonfinite_ += magnitude_bits(x[i]) >= kInfinity;
      max_ = std::max(max_, magnitude_bits(x[i]));
    }
}

template <class T>
Stats StatsLanes<T>::result() const {
  Stats s;
  s.sum = sum_.total();
  s.sum_squares = squares_.total();
  s.count = count_;
  Bits max = max_;
  if constexpr (std::is_same_v<T, float>) max = std::max(max, largest(block_max_));
  s.zeros = zeros_;
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
