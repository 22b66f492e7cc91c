// StatsLanes: the inner loop of all statistics.
//
// One object accumulates the statistics of a chunk in independent lanes, so that the additions overlap;
// result() adds the lanes in a fixed order. The loop is separate from the operation whose output it
// measures and runs over a tile that is still in the L1 cache: so passing a sink cannot change what
// the operation computes, and every operation shares this one loop.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <type_traits>

#include "gradflow/kernels/stats.h"

namespace gradflow::kernels::cpu {

inline void add(Stats& to, const Stats& part) {
  to.sum += part.sum;
  to.sum_squares += part.sum_squares;
  to.count += part.count;
  to.zeros += part.zeros;
  to.denormals += part.denormals;
  to.nonfinite += part.nonfinite;
  to.saturated += part.saturated;
  if (part.max_abs_bits > to.max_abs_bits) to.max_abs_bits = part.max_abs_bits;
}

template <class T>
class StatsLanes {
 public:
  // Values below `smallest_normal` in size count as denormal. A difference of f32 numbers is formed in f64
  // but judged by f32's limit.
  explicit StatsLanes(T smallest_normal = std::numeric_limits<T>::min())
      : smallest_normal_(std::bit_cast<Bits>(smallest_normal)) {}

  void add(const T* x, std::size_t n);
  void add_saturated(std::uint64_t count) { saturated_ += count; }
  Stats result() const;

 private:
  using Bits = std::conditional_t<sizeof(T) == 4, std::uint32_t, std::uint64_t>;
  static constexpr std::size_t kLanes = 16;
  static constexpr Bits kMagnitude = ~Bits{0} >> 1;
  static constexpr Bits kInfinity = std::bit_cast<Bits>(std::numeric_limits<T>::infinity());

  double sum_[kLanes] = {};
  double sum_squares_[kLanes] = {};
  std::uint64_t count_ = 0, zeros_ = 0, small_ = 0, nonfinite_ = 0, saturated_ = 0;  // small: zeros too
  Bits max_ = 0;
  Bits smallest_normal_;
};

template <class T>
void StatsLanes<T>::add(const T* x, std::size_t n) {
  std::size_t i = 0;
  for (; i + kLanes <= n; i += kLanes)
    for (std::size_t l = 0; l < kLanes; ++l) {
      const double v = static_cast<double>(x[i + l]);
      sum_[l] += v;
      sum_squares_[l] += v * v;
    }
  for (std::size_t l = 0; i < n; ++i, ++l) {
    const double v = static_cast<double>(x[i]);
    sum_[l] += v;
    sum_squares_[l] += v * v;
  }
  Bits max = 0, zeros = 0, small = 0;
  for (std::size_t j = 0; j < n; ++j) {
    const Bits bits = std::bit_cast<Bits>(x[j]) & kMagnitude;
    max = bits > max ? bits : max;
    zeros += bits == 0;
    small += bits < smallest_normal_;
  }
  if (max >= kInfinity)
    for (std::size_t j = 0; j < n; ++j) nonfinite_ += (std::bit_cast<Bits>(x[j]) & kMagnitude) >= kInfinity;
  count_ += n;
  zeros_ += zeros;
  small_ += small;
  max_ = max > max_ ? max : max_;
}

template <class T>
Stats StatsLanes<T>::result() const {
  Stats s;
  for (std::size_t l = 0; l < kLanes; ++l) {
    s.sum += sum_[l];
    s.sum_squares += sum_squares_[l];
  }
  s.count = count_;
  s.zeros = zeros_;
  s.denormals = small_ - zeros_;
  s.nonfinite = nonfinite_;
  s.saturated = saturated_;
  s.max_abs_bits = std::bit_cast<std::uint64_t>(static_cast<double>(std::bit_cast<T>(max_)));
  return s;
}

// How many outputs of Op are saturated.
template <class Op, class T>
std::uint64_t count_saturated(const T* y, std::size_t n) {
  if constexpr (!Op::saturates) {
    return 0;
  } else {
    std::uint32_t count = 0;  // n is a tile
    for (std::size_t i = 0; i < n; ++i) count += Op::saturated(y[i]);
    return count;
  }
}

}  // namespace gradflow::kernels::cpu
