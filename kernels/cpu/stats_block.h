// The f32 statistics loop: sixteen numbers at a time, summed in f32 for a moment and in f64 for good.
//
// Converting every number to f64 costs more than everything else that is measured of it, and closing a block
// costs as much as a dozen vectors. So a block's sums and sums of squares run in f32 on two levels: an
// accumulator takes at most 16 terms and is then folded into the block's total, which takes at most 4 before
// it is added to an f64 lane. Such a sum has passed at most 22 roundings (the square, 16 terms, accumulators
// and totals added up: 1 + 4 or 3 + 2), so it is off by at most 22 * 2^-24 < 2^-19.5 of the sum of
// magnitudes; squares have one sign, so their sum by that part of itself. What the bound does not cover is
// found afterwards and the block read again in f64 (StatsLanes::add_block):
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
#include <utility>

#ifdef __AVX512F__
#include <immintrin.h>
#endif

namespace gradflow::kernels::cpu {

inline constexpr std::size_t kVector = 16;  // numbers in 64 bytes
inline constexpr std::size_t kTerms = 16;   // what an f32 accumulator may take
inline constexpr std::size_t kBlock =
    2048;  // numbers in the longest block: a third of a 32 KiB cache holds it

using Floats = float __attribute__((vector_size(64)));
using Words = std::uint32_t __attribute__((vector_size(64)));

inline Floats load(const float* p) {
  Floats v;
  std::memcpy(&v, p, sizeof v);
  return v;
}
inline void store(float* p, Floats v) { std::memcpy(p, &v, sizeof v); }

// f of each number. "simd" keeps the compiler from unrolling the loop into sixteen scalar ones first, of
// which it does not find back to vectors where f chooses.
template <class F>
Floats map(Floats v, const F& f) {
  float x[kVector];
  store(x, v);
#pragma omp simd
  for (std::size_t l = 0; l < kVector; ++l) x[l] = f(x[l]);
  return load(x);
}
template <class F>
Floats map(Floats a, Floats b, const F& f) {
  float x[kVector], y[kVector];
  store(x, a);
  store(y, b);
#pragma omp simd
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

// Counts what is not zero.
struct Nonzeros {
  Words counts = {};

#ifdef __AVX512F__
  using Mask = __mmask16;
  Mask add(Floats v) {
    const Mask some = _mm512_cmp_ps_mask(v, Floats{}, _CMP_NEQ_UQ);
    const __m512i old = reinterpret_cast<__m512i>(counts);
    counts = reinterpret_cast<Words>(_mm512_mask_add_epi32(old, some, old, _mm512_set1_epi32(1)));
    return some;
  }
#else
  using Mask = Words;  // all bits of a number that is not zero
  Mask add(Floats v) {
    const Mask some = reinterpret_cast<Words>(magnitude(v) != 0);
    counts -= some;
    return some;
  }
#endif
  std::uint64_t total() const {
    std::uint64_t sum = 0;
    for (std::size_t l = 0; l < kVector; ++l) sum += counts[l];
    return sum;
  }
};

// smaller_magnitude of the numbers under the mask.
inline Words smaller_magnitude_where(Nonzeros::Mask some, Floats v, Words to) {
#ifdef __AVX512DQ__
  const Floats old = reinterpret_cast<Floats>(to);
  return reinterpret_cast<Words>(_mm512_mask_range_ps(old, some, v, old, kMinWithoutSign));
#elif defined(__AVX512F__)
  const __m512i old = reinterpret_cast<__m512i>(to);
  return reinterpret_cast<Words>(
      _mm512_mask_min_epu32(old, some, reinterpret_cast<__m512i>(magnitude(v)), old));
#else
  return smaller(magnitude(v) | ~some, to);
#endif
}

inline Floats add_square(Floats v, Floats to) {
#ifdef __AVX512F__
  return _mm512_fmadd_ps(v, v, to);
#else
  return v * v + to;
#endif
}

// v + to by the multipliers, which have less to do than the adders: on Zen 4 those also take vrangeps. One
// rounding either way, so the same bits.
inline Floats add_to(Floats v, Floats to) {
#ifdef __AVX512F__
  return _mm512_fmadd_ps(v, _mm512_set1_ps(1), to);
#else
  return v + to;
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

// What a block tells of zeros and denormals, which are rare but for the zeros that ReLU makes.
enum class Small {
  noticed,    // whether there may be some
  counted,    // how many zeros there are, and whether there may be denormals
  zeros_only  // how many zeros there are; who fills the block sets `min` to know of denormals
};

// What was measured of a block of at most kBlock numbers.
struct BlockSums {
  static constexpr std::uint32_t kNormal = 0x00800000;

  Floats sum = {}, squares = {};
  Words max = {};        // magnitudes; NaN may be missing, which every sum shows
  Words min = ~Words{};  // where zeros are counted, of what is not zero
  Nonzeros nonzeros;
  bool counts = false;  // zeros are counted

  // Lanes that hold zeros or denormals; where zeros are counted, denormals only.
  Words rare() const { return reinterpret_cast<Words>(min < kNormal); }
  bool infinite() const { return any(reinterpret_cast<Words>(max >= 0x7f800000u)); }
};

// The registers that measure a block, filled by for_each_vector(). Only a copy, sums(), is handed on: an
// object whose address another function knows is not kept in registers.
template <int k, Small small = Small::noticed>
class BlockRegisters {
 public:
  static constexpr int kAccumulators = k;

  [[gnu::always_inline]] void add(Floats v, int accumulator) {
    sum_[accumulator] = add_to(v, sum_[accumulator]);
    squares_[accumulator] = add_square(v, squares_[accumulator]);
    max_ = larger_magnitude(v, max_);
    if constexpr (small == Small::noticed) {
      min_ = smaller_magnitude(v, min_);
    } else {
      const Nonzeros::Mask some = nonzeros_.add(v);
      if constexpr (small == Small::counted) min_ = smaller_magnitude_where(some, v, min_);
    }
  }
  [[gnu::always_inline]] void fold() {
    [&]<int... j>(std::integer_sequence<int, j...>) __attribute__((always_inline)) {
      total_sum_ += (sum_[j] + ...);
      total_squares_ += (squares_[j] + ...);
      ((sum_[j] = squares_[j] = Floats{}), ...);
    }
    (std::make_integer_sequence<int, k>{});
  }
  [[gnu::always_inline]] BlockSums sums() const {
    return {total_sum_, total_squares_, max_, min_, nonzeros_, small != Small::noticed};
  }

 private:
  Floats sum_[k] = {}, squares_[k] = {};
  Floats total_sum_ = {}, total_squares_ = {};
  Words max_ = {}, min_ = ~Words{};
  Nonzeros nonzeros_;
};

// Calls f(i, accumulator) for every kVector numbers of [0, n), which adds them to the blocks; n <= kBlock is
// a multiple of k * kVector.
template <int k, class F, Small... small>
[[gnu::always_inline]] inline void for_each_vector(std::size_t n, const F& f,
                                                   BlockRegisters<k, small>&... blocks) {
  constexpr std::size_t row = k * kVector, run = row * kTerms;
  for (std::size_t begin = 0; begin < n; begin += run) {
    const std::size_t end = begin + run < n ? begin + run : n;
    for (std::size_t i = begin; i < end; i += row)
#pragma GCC unroll 4
      for (int j = 0; j < k; ++j) f(i + static_cast<std::size_t>(j) * kVector, j);
    (blocks.fold(), ...);
  }
}

}  // namespace gradflow::kernels::cpu
