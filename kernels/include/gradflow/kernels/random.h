// Philox4x32-10 and the numbers drawn from it, as functions of a position: one definition for engine/random.h, the
// host backend and the CUDA kernels, so that parameters drawn on a device have the bits of those drawn on the host.
//
// Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011. Only +, -, *, / and sqrt of
// f64, which IEEE 754 rounds in one way: whoever includes this must be compiled without contraction of a * b + c
// into one rounding (-ffp-contract=off, -fmad=false).
#pragma once

#include <cmath>
#include <cstdint>

#include "gradflow/kernels/pointwise_ops.h"  // GRADFLOW_HD

namespace gradflow::philox {

// What a counter is used for: bits 56..63 of the index, so that kinds never share a block. Bits 48..55 count the
// attempts of RandomStream::below().
enum Kind : std::uint64_t { kUniform = 0, kNormal = 1, kBelow = 2 };

struct Words {
  std::uint32_t w[4];
};

GRADFLOW_HD Words rounds(Words c, std::uint32_t key0, std::uint32_t key1) {
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t a = std::uint64_t{0xd2511f53u} * c.w[0], b = std::uint64_t{0xcd9e8d57u} * c.w[2];
    c = {{static_cast<std::uint32_t>(b >> 32) ^ c.w[1] ^ key0, static_cast<std::uint32_t>(b),
          static_cast<std::uint32_t>(a >> 32) ^ c.w[3] ^ key1, static_cast<std::uint32_t>(a)}};
    key0 += 0x9e3779b9u;
    key1 += 0xbb67ae85u;
  }
  return c;
}

struct Block {  // 128 random bits; also a pair of numbers: index 2n and 2n + 1 of a stream share one
  std::uint64_t first, second;
};
struct Pair {
  double first, second;
};

GRADFLOW_HD Block draw(std::uint64_t seed, std::uint64_t purpose, std::uint64_t block, Kind kind) {
  block |= static_cast<std::uint64_t>(kind) << 56;
  const auto low = [](std::uint64_t x) { return static_cast<std::uint32_t>(x); };
  const auto high = [](std::uint64_t x) { return static_cast<std::uint32_t>(x >> 32); };
  const Words r = rounds({{low(block), high(block), low(purpose), high(purpose)}}, low(seed), high(seed));
  return {r.w[0] | static_cast<std::uint64_t>(r.w[1]) << 32, r.w[2] | static_cast<std::uint64_t>(r.w[3]) << 32};
}

// The upper 53 bits as a multiple of 2^-53: every step is exact.
GRADFLOW_HD double unit(std::uint64_t bits) { return static_cast<double>(bits >> 11) * 0x1p-53; }
GRADFLOW_HD double unit_positive(std::uint64_t bits) { return static_cast<double>((bits >> 11) + 1) * 0x1p-53; }

// log x for normal x > 0. x = 2^e m with m in [sqrt(1/2), sqrt(2)); log m = 2 atanh s, s = (m-1)/(m+1),
// |s| < 0.1716, as the odd series up to s^21: the next term is below 2e-19 of the first.
GRADFLOW_HD double log_of(double x) {
  const std::uint64_t bits = __builtin_bit_cast(std::uint64_t, x);
  double e = static_cast<double>(static_cast<std::int64_t>(bits >> 52) - 1023);
  double m = __builtin_bit_cast(double, (bits & 0x000fffffffffffffu) | 0x3ff0000000000000u);
  const bool halve = m >= 1.4142135623730951;
  m = halve ? 0.5 * m : m;
  e = halve ? e + 1 : e;
  const double s = (m - 1) / (m + 1);
  const double z = s * s;
  double series = 2.0 / 21;
  series = series * z + 2.0 / 19;
  series = series * z + 2.0 / 17;
  series = series * z + 2.0 / 15;
  series = series * z + 2.0 / 13;
  series = series * z + 2.0 / 11;
  series = series * z + 2.0 / 9;
  series = series * z + 2.0 / 7;
  series = series * z + 2.0 / 5;
  series = series * z + 2.0 / 3;
  return e * 0.6931471805599453 + (s * z * series + 2 * s);
}

// cos and sin of 2 pi v for v in [0, 1). The nearest quarter turn is split off exactly; the rest is at
// most pi/4, where the Taylor series up to x^17 and x^18 leave less than 1e-18.
GRADFLOW_HD Pair cos_sin_of_turn(double v) {
  const int quarter = static_cast<int>(4 * v + 0.5);
  const double x = (4 * v - quarter) * 1.5707963267948966;
  const double z = x * x;
  double sine = 1.0 / 355687428096000;    // 1/17!
  sine = sine * z - 1.0 / 1307674368000;  // 1/15!
  sine = sine * z + 1.0 / 6227020800;     // 1/13!
  sine = sine * z - 1.0 / 39916800;       // 1/11!
  sine = sine * z + 1.0 / 362880;         // 1/9!
  sine = sine * z - 1.0 / 5040;           // 1/7!
  sine = sine * z + 1.0 / 120;            // 1/5!
  sine = sine * z - 1.0 / 6;              // 1/3!
  sine = x + x * (z * sine);
  double cosine = -1.0 / 6402373705728000;     // 1/18!
  cosine = cosine * z + 1.0 / 20922789888000;  // 1/16!
  cosine = cosine * z - 1.0 / 87178291200;     // 1/14!
  cosine = cosine * z + 1.0 / 479001600;       // 1/12!
  cosine = cosine * z - 1.0 / 3628800;         // 1/10!
  cosine = cosine * z + 1.0 / 40320;           // 1/8!
  cosine = cosine * z - 1.0 / 720;             // 1/6!
  cosine = cosine * z + 1.0 / 24;              // 1/4!
  cosine = 1 - (0.5 * z - z * (z * cosine));
  const bool swap = quarter & 1;
  const double c = swap ? sine : cosine;
  const double s = swap ? cosine : sine;
  return {(quarter == 1 || quarter == 2) ? -c : c, (quarter == 2 || quarter == 3) ? -s : s};
}

// Box and Muller: two uniform numbers make two independent normal ones.
GRADFLOW_HD Pair normal_pair(std::uint64_t seed, std::uint64_t purpose, std::uint64_t pair) {
  const Block block = draw(seed, purpose, pair, kNormal);
  const double radius = ::sqrt(-2 * log_of(unit_positive(block.first)));
  const auto [c, s] = cos_sin_of_turn(unit(block.second));
  return {radius * c, radius * s};
}

GRADFLOW_HD Pair uniform_pair(std::uint64_t seed, std::uint64_t purpose, std::uint64_t pair) {
  const Block block = draw(seed, purpose, pair, kUniform);
  return {unit(block.first), unit(block.second)};
}

}  // namespace gradflow::philox
