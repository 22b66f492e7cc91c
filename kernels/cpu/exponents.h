// The histogram over binary exponents (stats.h) as a chunk counts it, alone or beside the pass that reads the data.
#pragma once

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>

#include "gradflow/kernels/stats.h"
#include "storage.h"

namespace gradflow::kernels::cpu {

inline std::size_t exponent_bin(float x) {
  const std::uint32_t bits = std::bit_cast<std::uint32_t>(x) & 0x7fffffffu;
  if (bits == 0) return kZeroBin;
  if (bits > 0x7f800000u) return kNanBin;
  if (bits == 0x7f800000u) return kInfinityBin;
  const int biased = static_cast<int>(bits >> 23);
  // A denormal is mantissa * 2^-149: its exponent is the position of the mantissa's highest bit.
  const int exponent = biased ? biased - 127 : static_cast<int>(std::bit_width(bits)) - 1 + kMinExponent;
  return static_cast<std::size_t>(1 + exponent - kMinExponent);
}

inline std::size_t exponent_bin(double x) {
  const std::uint64_t bits = std::bit_cast<std::uint64_t>(x) & ~(std::uint64_t{1} << 63);
  constexpr std::uint64_t kInfinity = 0x7ff0000000000000u;
  if (bits == 0) return kZeroBin;
  if (bits > kInfinity) return kNanBin;
  if (bits == kInfinity) return kInfinityBin;
  const int exponent = static_cast<int>(bits >> 52) - 1023;  // denormals of f64 fall far below kMinExponent
  return static_cast<std::size_t>(1 + std::clamp(exponent, kMinExponent, kMaxExponent) - kMinExponent);
}

// Counts one chunk for `bins`; with null, where nobody asks, every call returns at once.
class ExponentCounts {
 public:
  explicit ExponentCounts(std::uint64_t* bins) : bins_(bins) {
    if (bins_) std::fill(counts_, counts_ + kExponentBins, 0);
  }
  template <class S>
  void add(const S* x, std::size_t n) {
    if (bins_) count(x, n);
  }
  // Integers: the order in which chunks arrive changes no bit.
  void flush() const {
    if (!bins_) return;
#pragma omp critical(gradflow_exponent_histogram)
    for (std::size_t b = 0; b < kExponentBins; ++b) bins_[b] += counts_[b];
  }

 private:
  // Not inlined: every operation and direction shares one loop a storage type.
  template <class S>
  [[gnu::noinline]] void count(const S* x, std::size_t n) {
    for (std::size_t i = 0; i < n; ++i) ++counts_[exponent_bin(widen(x[i]))];
  }

  std::uint64_t* bins_;
  std::uint64_t counts_[kExponentBins];
};

}  // namespace gradflow::kernels::cpu
