// Raw statistics of one tensor, accumulated on the device in a fixed order.
//
// The struct lies in device memory; a backend adds to it and never clears it on its own.
//
// How exact: counts and max_abs are exact. Of f64 numbers, and of f32 and bf16 numbers on CUDA, sums run in f64. Of
// f32 and bf16 numbers on the host, runs of at most 16 numbers may be added in f32 before they are added in f64;
// then
//   |error of sum|          <= 2^-19 * sum of |x|      (4e-8 is typical)
//   |error of sum_squares|  <= 2^-19 * sum_squares     (a norm is within 1e-6, 1e-8 is typical)
// and runs for which that would not do are added in f64: those with squares outside f32's range, so that 1e-31
// squared survives, and those whose mean is large beside their spread, so that mean_square() - mean()^2 holds
// about as many digits. Either way equal input gives equal bits.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>

namespace gradflow {

struct Stats {
  double sum = 0;                     // sum of x
  double sum_squares = 0;             // sum of x^2
  std::uint64_t count = 0;            // elements seen
  std::uint64_t zeros = 0;            // exactly +0 or -0
  std::uint64_t denormals = 0;        // 0 < |x| < smallest normal number of the storage type
  std::uint64_t nonfinite = 0;        // NaN or +-Inf
  std::uint64_t saturated = 0;        // PointwiseOp::saturated(y) holds; 0 for ops that cannot saturate
  std::uint64_t max_abs_bits = 0;     // largest |x| as the bits of a double (ordered like the values;
                                      // NaN above Inf above every finite number)

  double norm() const noexcept { return std::sqrt(sum_squares); }
  double mean() const noexcept { return count ? sum / static_cast<double>(count) : 0.0; }
  double mean_square() const noexcept {
    return count ? sum_squares / static_cast<double>(count) : 0.0;
  }
  double max_abs() const noexcept;
  double standard_deviation() const noexcept;  // population; 0 for an empty tensor
  double fraction(std::uint64_t part) const noexcept {
    return count ? static_cast<double>(part) / static_cast<double>(count) : 0.0;
  }
};

// Histogram over binary exponents, one bin a power of two, from the smallest f32 denormal to the
// largest f32. Index 0: exact zero. Index 1 + (e + 149) for floor(log2|x|) = e in [-149, 127].
// Then infinity, then NaN. f64 values outside the f32 range fall into the outermost finite bin.
inline constexpr int kMinExponent = -149;
inline constexpr int kMaxExponent = 127;
inline constexpr std::size_t kFiniteBins = static_cast<std::size_t>(kMaxExponent - kMinExponent + 1);
inline constexpr std::size_t kZeroBin = 0;
inline constexpr std::size_t kInfinityBin = 1 + kFiniteBins;
inline constexpr std::size_t kNanBin = 2 + kFiniteBins;
inline constexpr std::size_t kExponentBins = 3 + kFiniteBins;  // 280

}  // namespace gradflow
