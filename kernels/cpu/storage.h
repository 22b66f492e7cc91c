// bf16 on the host: stored in bf16, computed in f32, a tile at a time.
//
// The loops of this folder are written for numbers they can compute with. Where S is such a number, the types
// below are its own pointer and cost nothing; where S is Bf16 they hold a tile widened to f32, and round it on
// its way back (or a loop widens and narrows numbers itself). A loop thereby computes on bf16 what it computes on the widened f32 numbers, rounded once.
#pragma once

#include <cstddef>
#include <type_traits>

#include "gradflow/kernels/bf16.h"
#include "parallel.h"

namespace gradflow::kernels::cpu {

// What is computed with, and what parameters, means and moments of a call on S are stored in.
template <class S>
using Arithmetic = std::conditional_t<std::is_same_v<S, Bf16>, float, S>;

inline float widen(Bf16 x) { return to_float(x); }
template <class T>
T widen(T x) {
  return x;
}

template <class S>
S narrow(Arithmetic<S> x) {
  if constexpr (std::is_same_v<S, Bf16>)
    return to_bf16(x);
  else
    return x;
}

// What is read back where x was stored.
template <class S>
Arithmetic<S> as_stored(Arithmetic<S> x) {
  return widen(narrow<S>(x));
}

// A tile to read: data = tile.read(x + from, n).
template <class S>
class TileIn {
 public:
  const S* read(const S* x, std::size_t) { return x; }
};

// A tile to write: data = tile.open(y + from, n, mode); compute into data; tile.close(y + from, n). With
// `accumulate` data holds what y holds. After close() data holds what was stored, rounding included.
template <class S>
class TileOut {
 public:
  S* open(S* y, std::size_t, GradMode = GradMode::overwrite) { return y; }
  void close(S*, std::size_t) {}
};

template <>
class TileIn<Bf16> {
 public:
  const float* read(const Bf16* x, std::size_t n) {
    for (std::size_t i = 0; i < n; ++i) values_[i] = to_float(x[i]);
    return values_;
  }

 private:
  alignas(64) float values_[kTile];
};

template <>
class TileOut<Bf16> {
 public:
  float* open(Bf16* y, std::size_t n, GradMode mode = GradMode::overwrite) {
    if (mode == GradMode::accumulate)
      for (std::size_t i = 0; i < n; ++i) values_[i] = to_float(y[i]);
    return values_;
  }
  void close(Bf16* y, std::size_t n) {
    for (std::size_t i = 0; i < n; ++i) {
      y[i] = to_bf16(values_[i]);
      values_[i] = to_float(y[i]);
    }
  }

 private:
  alignas(64) float values_[kTile];
};

// Calls f.template operator()<S>() for float, double or Bf16; throws UserError for any other type.
void require_stored(DType dtype);
template <class F>
void visit_stored(DType dtype, F&& f) {
  require_stored(dtype);
  if (dtype == DType::bf16)
    f.template operator()<Bf16>();
  else if (dtype == DType::f32)
    f.template operator()<float>();
  else
    f.template operator()<double>();
}

}  // namespace gradflow::kernels::cpu
