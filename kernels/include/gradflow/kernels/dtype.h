// Element types that tensors are stored in.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace gradflow {

// f32 is the default. f64 exists on the host only, so that whole networks can be gradient-checked.
// u8 and i32 hold images, labels and counters; no arithmetic runs on them.
enum class DType : std::uint8_t { f32, f64, bf16, u8, i32 };

constexpr std::size_t size_of(DType t) noexcept {
  switch (t) {
    case DType::f32: return 4;
    case DType::f64: return 8;
    case DType::bf16: return 2;
    case DType::u8: return 1;
    case DType::i32: return 4;
  }
  return 0;
}

// What numbers of type t are computed in, and what parameters, their gradients and statistics beside them are.
constexpr DType arithmetic_type(DType t) noexcept { return t == DType::bf16 ? DType::f32 : t; }

constexpr std::string_view name_of(DType t) noexcept {
  switch (t) {
    case DType::f32: return "f32";
    case DType::f64: return "f64";
    case DType::bf16: return "bf16";
    case DType::u8: return "u8";
    case DType::i32: return "i32";
  }
  return "?";
}

// What a backward pass does with a gradient it produces. The plan assigns it per gradient edge: in
// reverse order the first consumer overwrites, later ones accumulate, so nothing is zeroed first.
enum class GradMode : std::uint8_t {
  none,        // nobody wants this gradient: do not compute it
  overwrite,   // dx  = ...
  accumulate,  // dx += ...
};

}  // namespace gradflow
