// The f32 statistics loop: sixteen numbers at a time, summed in f32 for a moment and in f64 for good.
//
// Converting every number to f64 costs more than everything else that is measured of it. So a block's sums
// and sums of squares run in f32, no accumulator taking more than 16 terms before it is added to an f64 lane.
// Such a sum has passed at most 20 roundings (the square, 16 terms, 3 accumulators added up), so it is off by
// at most 20 * 2^-24 < 2^-19.6 of the sum of magnitudes; squares have one sign, so their sum by that part of
// itself. What the bound does not cover is found afterwards and the block read again in f64
// (StatsLanes::add_block):
//   * squares that leave f32's range, as those of gradients below 1e-12 do;
//   * blocks whose mean is large beside their spread, where the standard deviation would be a difference of
//     two nearly equal numbers;
//   * infinities and NaN.
// One source for every instruction set: g++ maps 64-byte vectors to the registers there are. Only the product
// and sum of a square is one rounding with AVX-512 and two without.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#ifdef __AVX512F__
#include <immintrin.h>
#endif

namespace gradflow::kernels::cpu {

inline constexpr std::size_t kVector = 16;  // numbers in 64 bytes
inline constexpr std::size_t kTerms = 16;   // what an f32 accumulator may take

using Floats = float __attribute__((vector_size(64)));
using Words = std::uint32_t __attribute__((vector_size(64)));

inline Floats load(const float* p) {
  Floats v;
  std::memcpy(&v, p, sizeof v);
  return v;
}
inline void store(float* p, Floats v) { std::memcpy(p, &v, sizeof v); }

// f of each number; written so that it becomes vector instructions where f does.
template <class F>
Floats map(Floats v, const F& f) {
  float x[kVector];
  store(x, v);
  for (std::size_t l = 0; l < kVector; ++l) x[l] = f(x[l]);
  return load(x);
}
template <class F>
Floats map(Floats a, Floats b, const F& f) {
  float x[kVector], y[kVector];
  store(x, a);
  store(y, b);
  for (std::size_t l = 0; l < kVector; ++l) x[l] = f(x[l], y[l]);
  return load(x);
}

inline Words smaller(Words a, Words b) { return a < b ? a : b; }
inline Words larger(Words a, Words b) { return a > b ? a : b; }
inline Words magnitude(Floats v) { return reinterpret_cast<Words>(v) & 0x7fffffffu; }

inline constexpr int kMinWithoutSign = 0b1010, kMaxWithoutSign = 0b1011;  // what vrangeps does

// The bits of the larger and of the smaller magnitude, where `to` has no sign. With AVX-512 one instruction,
// which passes over NaN.
inline Words larger_magnitude(Floats v, Words to) {
#ifdef __AVX512DQ__
  return reinterpret_cast<Words>(_mm512_range_ps(v, reinterpret_cast<Floats>(to), kMaxWithoutSign));
#else
  return larger(magnitude(v), to);
#endif
}
inline Words smaller_magnitude(Floats v, Words to) {
#ifdef __AVX512DQ__
  return reinterpret_cast<Words>(_mm512_range_ps(v, reinterpret_cast<Floats>(to), kMinWithoutSign));
#else
  return smaller(magnitude(v), to);
#endif
}

// Counts what is not zero, and finds the smallest magnitude of that.
struct Nonzeros {
#ifdef __AVX512DQ__
  std::uint32_t count = 0;
  void add(Floats v, Words& min) {
    const __mmask16 some = _mm512_cmp_ps_mask(v, Floats{}, _CMP_NEQ_UQ);
    count += static_cast<std::uint32_t>(__builtin_popcount(some));
    const Floats old = reinterpret_cast<Floats>(min);
    min = reinterpret_cast<Words>(_mm512_mask_range_ps(old, some, v, old, kMinWithoutSign));
  }
  std::uint64_t total() const { return count; }
#else
  Words counts = {};
  void add(Floats v, Words& min) {
    const Words bits = magnitude(v), zero = reinterpret_cast<Words>(bits == 0);
    counts += zero + 1;
    min = smaller(bits | zero, min);
  }
  std::uint64_t total() const {
    std::uint64_t sum = 0;
    for (std::size_t l = 0; l < kVector; ++l) sum += counts[l];
    return sum;
  }
#endif
};

inline Floats add_square(Floats v, Floats to) {
#ifdef __AVX512F__
  return _mm512_fmadd_ps(v, v, to);
#else
  return v * v + to;
#endif
}

// Whether any word is not 0.
inline bool any(Words v) {
#ifdef __AVX512F__
  return _mm512_test_epi32_mask(reinterpret_cast<__m512i>(v), reinterpret_cast<__m512i>(v)) != 0;
#else
  std::uint64_t x[kVector / 2], all = 0;
  std::memcpy(x, &v, sizeof x);
  for (const std::uint64_t w : x) all |= w;
  return all != 0;
#endif
}

inline std::uint32_t largest(Words v) {
  std::uint32_t max = 0;
  for (std::size_t l = 0; l < kVector; ++l) max = v[l] > max ? v[l] : max;
  return max;
}

// Sixteen f64 sums, in 32-byte registers: converting into wider ones costs more (Zen 4).
struct Lanes {
  using Doubles = double __attribute__((vector_size(32)));
  Doubles of[4] = {};

  template <class T>
  static Doubles widen(const T* p) {
    T v __attribute__((vector_size(4 * sizeof(T))));
    std::memcpy(&v, p, sizeof v);
    return __builtin_convertvector(v, Doubles);
  }
  template <class T>
  void add(const T* p) {
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) of[j] += widen(p + 4 * j);
  }
  template <class T>
  void add_squares(const T* p) {
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) {
      const Doubles v = widen(p + 4 * j);
      of[j] += v * v;
    }
  }
  void add(Floats v) {
    float x[kVector];
    std::memcpy(x, &v, sizeof x);
    add(x);
  }
  double total() const {
    const Doubles v = (of[0] + of[1]) + (of[2] + of[3]);
    return (v[0] + v[1]) + (v[2] + v[3]);
  }
};

// One block in registers. Whoever fills it calls add() for accumulator 0, 1, ... k-1, 0, ... in turn, at most
// kTerms times each. With `counts` it counts zeros on the way; without, it only tells whether there may be
// any.
template <int k, bool counts = false>
struct BlockSums {
  static constexpr std::size_t kNumbers = k * kTerms * kVector;  // at most
  static constexpr std::uint32_t kNormal = 0x00800000;

  Floats sum[k] = {}, squares[k] = {};
  Words max = {};         // magnitudes; NaN may be missing, which every sum shows
  Words min = ~Words{};   // with `counts` of what is not zero
  Nonzeros nonzeros;

  void add(Floats v, int accumulator) {
    sum[accumulator] += v;
    squares[accumulator] = add_square(v, squares[accumulator]);
    max = larger_magnitude(v, max);
    if constexpr (counts)
      nonzeros.add(v, min);
    else
      min = smaller_magnitude(v, min);
  }
  // Lanes that hold zeros or denormals; with `counts`, denormals only.
  Words rare() const { return reinterpret_cast<Words>(min < kNormal); }
  bool infinite() const { return any(reinterpret_cast<Words>(max >= 0x7f800000u)); }
};

}  // namespace gradflow::kernels::cpu
