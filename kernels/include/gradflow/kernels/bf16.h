// bf16 as it is stored: sign, exponent and upper 7 bits of the mantissa of an f32. Same range as f32, so what is
// denormal in one is denormal in the other.
#pragma once

#include <bit>
#include <cstdint>

namespace gradflow {

struct Bf16 {
  std::uint16_t bits;
  friend constexpr bool operator==(Bf16, Bf16) = default;  // of the bits: NaN equals itself, -0 is not 0
};

constexpr float to_float(Bf16 x) { return std::bit_cast<float>(static_cast<std::uint32_t>(x.bits) << 16); }

// The nearest bf16, of two equally near ones the even one; too large for bf16 gives infinity. NaN stays NaN, with
// its sign. Integer arithmetic without a branch: a loop over it becomes SIMD.
constexpr Bf16 to_bf16(float x) {
  const std::uint32_t bits = std::bit_cast<std::uint32_t>(x);
  const std::uint32_t rounded = bits + 0x7fffu + ((bits >> 16) & 1u);
  const std::uint32_t quiet = bits | 0x400000u;
  return {static_cast<std::uint16_t>(((bits & 0x7fffffffu) > 0x7f800000u ? quiet : rounded) >> 16)};
}

}  // namespace gradflow
