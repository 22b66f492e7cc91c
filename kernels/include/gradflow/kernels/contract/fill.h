// Casts and random numbers. The rules of every call stand in kernels/backend.h.
#pragma once

#include <cstddef>
#include <cstdint>

#include "gradflow/kernels/dtype.h"

namespace gradflow::kernels {

// y[i] = x[i] in another type: f32 <-> bf16, on the host also from and to f64 (to bf16 by way of f32). Rounded to
// nearest even; aliases nothing. Equal types are an InternalError.
struct Cast {
  DType from = DType::f32, to = DType::bf16;
  std::size_t n = 0;
  const void* x = nullptr;
  void* y = nullptr;
};

// The numbers of RandomStream(seed, purpose) (engine/random.h), positions first .. first + n - 1, the same bits on
// every backend: computed in f64 and rounded to dtype (bf16 by way of f32).
enum class Distribution : std::uint8_t {
  uniform,  // x[i] = a + (b - a) * uniform(first + i)
  normal,   // x[i] = a + b * normal(first + i)
};
struct RandomFill {
  DType dtype = DType::f32;
  std::size_t n = 0;
  void* x = nullptr;
  Distribution distribution = Distribution::uniform;
  double a = 0, b = 1;
  std::uint64_t seed = 0, purpose = 0;  // RandomStream::seed(), purpose()
  std::uint64_t first = 0;
};

}  // namespace gradflow::kernels
