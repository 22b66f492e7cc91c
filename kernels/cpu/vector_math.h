// The functions of pointwise ops for f32, written as straight-line code that the compiler turns into SIMD.
//
// No branch, no call, no table: inside a loop g++ -O3 vectorizes every function here. A vector lane and a
// scalar tail give the same bits, because multiply-adds are fused where this file says so and nowhere else
// (-ffp-contract=off in kernels/CMakeLists.txt).
//
// Accuracy against f64 over all finite inputs: exp 1 ulp, sigmoid 2.2 ulp, tanh 2.3 ulp, softplus 2.5 ulp, expm1
// (x <= 0) 2.5 ulp, normal_cdf 4 ulp. NaN gives NaN; results that are denormal come out denormal
// (sigmoid(-100) is 3.8e-44, not 0); tanh keeps the sign of zero.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>

#include "gradflow/kernels/pointwise_ops.h"

namespace gradflow::kernels::cpu {

namespace detail {

// a * b + c with one rounding where the machine has it in hardware, with two otherwise.
GRADFLOW_HD float multiply_add(float a, float b, float c) {
#ifdef __FMA__
  return __builtin_fmaf(a, b, c);
#else
  return a * b + c;
#endif
}

// x = count * ln 2 + rest with |rest| <= ln(2)/2 (a little more at the edges). ln 2 in two parts, the first
// so short (15 bits) that count * part is exact for |count| < 2^9 without an fma.
struct Ln2Reduction {
  float rest;
  std::uint32_t count;  // two's complement
};

GRADFLOW_HD Ln2Reduction reduce_ln2(float x) {
  constexpr float kLog2E = 1.44269504088896341f;
  constexpr float kRound = 12582912.0f;  // 1.5 * 2^23: adding it rounds to the nearest integer
  const float shifted = multiply_add(x, kLog2E, kRound);
  const float n = shifted - kRound;
  constexpr float kHigh = 0x1.62e4p-1f;
  constexpr float kLow = 0x1.7f7d1cp-20f;
  const float rest = multiply_add(-n, kLow, multiply_add(-n, kHigh, x));
  return {rest, std::bit_cast<std::uint32_t>(shifted) - std::bit_cast<std::uint32_t>(kRound)};
}

// exp(r) - 1 for |r| <= 0.35: the Taylor polynomial to r^7. The first term left out, r^8/8!, is below
// 6e-9 of the result, a tenth of half an ulp.
GRADFLOW_HD float expm1_reduced(float r) {
  float p = 1.0f / 5040.0f;
  p = multiply_add(p, r, 1.0f / 720.0f);
  p = multiply_add(p, r, 1.0f / 120.0f);
  p = multiply_add(p, r, 1.0f / 24.0f);
  p = multiply_add(p, r, 1.0f / 6.0f);
  p = multiply_add(p, r, 0.5f);
  return multiply_add(r * r, p, r);
}

// 2^count for count in [-126, 127].
GRADFLOW_HD float power_of_two(std::uint32_t count) { return std::bit_cast<float>((count + 127u) << 23); }

GRADFLOW_HD float minus_abs(float x) {
  return std::bit_cast<float>(std::bit_cast<std::uint32_t>(x) | 0x80000000u);
}

// log(1 + e) for e in [0, 1]: 2 atanh(s) with s = e/(2+e) <= 1/3, as t (1 + s^2/3 + s^4/5 + ...) with
// t = 2s = e/(1 + e/2), which is e itself for a denormal. The first term left out, s^16/17, is below 2e-9.
GRADFLOW_HD float log1p_of_unit(float e) {
  const float t = e / multiply_add(0.5f, e, 1.0f);
  const float z = 0.25f * (t * t);
  float p = 1.0f / 15.0f;
  p = multiply_add(p, z, 1.0f / 13.0f);
  p = multiply_add(p, z, 1.0f / 11.0f);
  p = multiply_add(p, z, 1.0f / 9.0f);
  p = multiply_add(p, z, 1.0f / 7.0f);
  p = multiply_add(p, z, 1.0f / 5.0f);
  p = multiply_add(p, z, 1.0f / 3.0f);
  return multiply_add(t, z * p, t);
}

// r(t) = exp(t^2/2) P(-t) for t in [0, 15]: a polynomial in u = (t - 4)/(t + 4), divided by 1 + t. It
// interpolates r (1 + t) at the 11 extrema of a Chebyshev polynomial, so that r(0) = 1/2; the error is 2e-8 of r.
GRADFLOW_HD float scaled_normal_tail(float t) {
  const float u = (t - 4.0f) / (t + 4.0f);
  float p = -0x1.31a826p-14f;
  p = multiply_add(p, u, -0x1.114cdep-14f);
  p = multiply_add(p, u, 0x1.691822p-11f);
  p = multiply_add(p, u, -0x1.3cc31cp-12f);
  p = multiply_add(p, u, -0x1.47c0b6p-8f);
  p = multiply_add(p, u, 0x1.25ef7p-6f);
  p = multiply_add(p, u, -0x1.07c434p-5f);
  p = multiply_add(p, u, 0x1.d494ap-6f);
  p = multiply_add(p, u, 0x1.cabda6p-7f);
  p = multiply_add(p, u, -0x1.8c18eep-4f);
  p = multiply_add(p, u, 0x1.e361eap-2f);
  return p / (1.0f + t);
}

}  // namespace detail

struct F32Math {
  static GRADFLOW_HD float exp(float x) {
    // Below -104 the result rounds to 0, above 89 it is infinite; comparisons are false for NaN, which stays.
    x = x < -104.0f ? -104.0f : x;
    x = x > 89.0f ? 89.0f : x;
    const auto [rest, count] = detail::reduce_ln2(x);
    const float p = 1.0f + detail::expm1_reduced(rest);
    // Two factors, because 2^count leaves the range of normal numbers at both ends. The first product is
    // exact, so a denormal result is rounded once.
    const std::uint32_t half = static_cast<std::uint32_t>(static_cast<std::int32_t>(count) >> 1);
    return p * detail::power_of_two(half) * detail::power_of_two(count - half);
  }

  // expm1(2|x|) / (expm1(2|x|) + 2): no cancellation near 0, and 1 from |x| = 9.02 on.
  static GRADFLOW_HD float tanh(float x) {
    const std::uint32_t bits = std::bit_cast<std::uint32_t>(x);
    float a = std::bit_cast<float>(bits & 0x7fffffffu);
    a = a > 10.0f ? 10.0f : a;
    const auto [rest, count] = detail::reduce_ln2(a + a);
    const float scale = detail::power_of_two(count);
    const float e = detail::multiply_add(scale, detail::expm1_reduced(rest), scale - 1.0f);
    const float t = e / (e + 2.0f);
    return std::bit_cast<float>(std::bit_cast<std::uint32_t>(t) | (bits & 0x80000000u));
  }

  // 1/(1+e) or e/(1+e) with e = exp(-|x|), which cannot overflow.
  static GRADFLOW_HD float sigmoid(float x) {
    const float e = exp(detail::minus_abs(x));
    return (x < 0.0f ? e : 1.0f) / (1.0f + e);
  }

  // For x <= 0. Below -20 the result rounds to -1.
  static GRADFLOW_HD float expm1(float x) {
    x = x < -20.0f ? -20.0f : x;
    const auto [rest, count] = detail::reduce_ln2(x);
    const float scale = detail::power_of_two(count);
    return detail::multiply_add(scale, detail::expm1_reduced(rest), scale - 1.0f);
  }

  // max(x, 0) + log(1 + e) with e = exp(-|x|) in [0, 1].
  static GRADFLOW_HD float softplus(float x) {
    return (x > 0.0f ? x : 0.0f) + detail::log1p_of_unit(exp(detail::minus_abs(x)));
  }

  // P(-t) = exp(-t^2/2) r(t) for t = |x|, where r is smooth; 1 - P(-t) does not cancel. The rounding error of
  // t^2 would be multiplied by t^2, so it is taken out. The exp is the one of the density, in the same words: where
  // both are wanted (GELU's derivative) the compiler computes it once.
  static GRADFLOW_HD float normal_cdf(float x) {
    float t = std::bit_cast<float>(std::bit_cast<std::uint32_t>(x) & 0x7fffffffu);
    t = t > 15.0f ? 15.0f : t;  // P(-15) is below the smallest denormal
    const float error = detail::multiply_add(t, t, -(t * t));  // 0 without fma: the tail then loses digits
    const float e = exp(-0.5f * (x * x));
    const float tail = detail::multiply_add(e, -0.5f * error, e) * detail::scaled_normal_tail(t);
    return x > 0.0f ? 1.0f - tail : tail;
  }
};

template <class T>
struct MathOf;
template <>
struct MathOf<float> {
  using type = F32Math;
};
template <>
struct MathOf<double> {
  using type = ops::StdMath;
};
template <class T>
using Math = typename MathOf<T>::type;

}  // namespace gradflow::kernels::cpu
