#include "gradflow/engine/random.h"

// Keep this file free of contraction of a * b + c into one rounding (set in engine/CMakeLists.txt): on
// a machine with fused multiply-add it would change the last bit of normal numbers.
#include <Random123/philox.h>
#include <fmt/format.h>

#include <bit>
#include <cmath>
#include <numeric>
#include <utility>

#include "gradflow/kernels/error.h"

namespace gradflow {
namespace {

// What a counter is used for: bits 56..63 of the index, so that kinds never share a Philox block.
// Bits 48..55 count the attempts of below().
enum Kind : std::uint64_t { kUniform = 0, kNormal = 1, kBelow = 2 };

using Philox = r123::Philox4x32_R<10>;

struct Block {
  std::uint64_t low, high;
};

inline Block draw(std::uint64_t seed, std::uint64_t purpose, std::uint64_t block, Kind kind) {
  const auto lower = [](std::uint64_t x) { return static_cast<std::uint32_t>(x); };
  const auto upper = [](std::uint64_t x) { return static_cast<std::uint32_t>(x >> 32); };
  block |= static_cast<std::uint64_t>(kind) << 56;
  const Philox::ctr_type counter{{lower(block), upper(block), lower(purpose), upper(purpose)}};
  const Philox::key_type key{{lower(seed), upper(seed)}};
  const Philox::ctr_type r = Philox()(counter, key);
  return {r[0] | static_cast<std::uint64_t>(r[1]) << 32, r[2] | static_cast<std::uint64_t>(r[3]) << 32};
}

// The upper 53 bits as a multiple of 2^-53: every step is exact.
inline double unit(std::uint64_t bits) { return static_cast<double>(bits >> 11) * 0x1p-53; }
inline double unit_positive(std::uint64_t bits) { return static_cast<double>((bits >> 11) + 1) * 0x1p-53; }

// log x for normal x > 0. x = 2^e m with m in [sqrt(1/2), sqrt(2)); log m = 2 atanh s, s = (m-1)/(m+1),
// |s| < 0.1716, as the odd series up to s^21: the next term is below 2e-19 of the first.
inline double log_of(double x) {
  const std::uint64_t bits = std::bit_cast<std::uint64_t>(x);
  double e = static_cast<double>(static_cast<std::int64_t>(bits >> 52) - 1023);
  double m = std::bit_cast<double>((bits & 0x000fffffffffffffu) | 0x3ff0000000000000u);
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
inline std::pair<double, double> cos_sin_of_turn(double v) {
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
inline std::pair<double, double> normal_pair(std::uint64_t seed, std::uint64_t purpose, std::uint64_t pair) {
  const Block block = draw(seed, purpose, pair, kNormal);
  const double radius = std::sqrt(-2 * log_of(unit_positive(block.low)));
  const auto [c, s] = cos_sin_of_turn(unit(block.high));
  return {radius * c, radius * s};
}

std::uint64_t hash(std::string_view text) {  // FNV-1a
  std::uint64_t h = 0xcbf29ce484222325u;
  for (char c : text) h = (h ^ static_cast<unsigned char>(c)) * 0x100000001b3u;
  return h;
}

std::uint64_t scramble(std::uint64_t x) {  // the finalizer of SplitMix64: a bijection
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

constexpr std::int64_t kParallelFrom = 1 << 14;  // below it, waking the threads costs more

// Calls write(i, first draw of the pair, second) for each pair of the range; a pair that is cut by the
// begin or the end of the range is drawn whole and written in part.
template <class T, class DrawPair, class Map>
void fill_pairs(std::span<T> out, std::uint64_t first, DrawPair draw_pair, Map map) {
  if (out.empty()) return;
  const std::uint64_t last = first + out.size();  // one behind
  const auto begin = static_cast<std::int64_t>(first / 2);
  const auto end = static_cast<std::int64_t>((last + 1) / 2);
#pragma omp parallel for schedule(static) if (end - begin >= kParallelFrom)
  for (std::int64_t pair = begin; pair < end; ++pair) {
    const auto [a, b] = draw_pair(static_cast<std::uint64_t>(pair));
    const std::uint64_t index = 2 * static_cast<std::uint64_t>(pair);
    if (index >= first) out[index - first] = static_cast<T>(map(a));
    if (index + 1 < last) out[index + 1 - first] = static_cast<T>(map(b));
  }
}

}  // namespace

std::array<std::uint32_t, 4> philox_block(std::array<std::uint32_t, 4> counter,
                                          std::array<std::uint32_t, 2> key) {
  const Philox::ctr_type r = Philox()({{counter[0], counter[1], counter[2], counter[3]}}, {{key[0], key[1]}});
  return {r[0], r[1], r[2], r[3]};
}

RandomStream::RandomStream(std::uint64_t seed, std::string_view purpose, std::uint64_t number)
    : seed_(seed), purpose_(scramble(hash(purpose) + number * 0x9e3779b97f4a7c15u)) {}

std::uint64_t RandomStream::bits64(std::uint64_t index) const {
  const Block block = draw(seed_, purpose_, index / 2, kUniform);
  return index % 2 == 0 ? block.low : block.high;
}

std::uint32_t RandomStream::bits32(std::uint64_t index) const {
  return static_cast<std::uint32_t>(bits64(index) >> 32);
}

double RandomStream::uniform(std::uint64_t index) const { return unit(bits64(index)); }

double RandomStream::uniform_positive(std::uint64_t index) const { return 1 - uniform(index); }

double RandomStream::normal(std::uint64_t index) const {
  const auto [a, b] = normal_pair(seed_, purpose_, index / 2);
  return index % 2 == 0 ? a : b;
}

std::uint64_t RandomStream::below(std::uint64_t bound, std::uint64_t index) const {
  if (bound == 0) throw InternalError("RandomStream::below: the bound is 0");
  // Lemire, "Fast random integer generation in an interval" (2019): the upper half of bits * bound, where
  // lower halves below 2^64 mod bound are drawn anew, since those values would come up once too often.
  __extension__ using Wide = unsigned __int128;
  const std::uint64_t reject_below = (0 - bound) % bound;
  for (std::uint64_t attempt = 0;; ++attempt) {
    const Block block = draw(seed_, purpose_, index | (attempt & 0xff) << 48, kBelow);
    const Wide product = static_cast<Wide>(attempt < 256 ? block.low : block.high) * bound;
    // A draw is rejected with chance below bound / 2^64; after 512 of them (2^-512 at the very worst)
    // the loop ends for certain.
    if (static_cast<std::uint64_t>(product) >= reject_below || attempt == 511)
      return static_cast<std::uint64_t>(product >> 64);
  }
}

namespace {

template <class T>
void normals(std::span<T> out, double mean, double deviation, std::uint64_t first, std::uint64_t seed,
             std::uint64_t purpose) {
  fill_pairs(
      out, first, [=](std::uint64_t pair) { return normal_pair(seed, purpose, pair); },
      [=](double x) { return mean + deviation * x; });
}

template <class T>
void uniforms(std::span<T> out, double low, double high, std::uint64_t first, std::uint64_t seed,
              std::uint64_t purpose) {
  const double width = high - low;
  fill_pairs(
      out, first, [=](std::uint64_t pair) { return draw(seed, purpose, pair, kUniform); },
      [=](std::uint64_t bits) { return low + width * unit(bits); });
}

}  // namespace

void RandomStream::fill_normal(std::span<float> out, double mean, double deviation,
                               std::uint64_t first) const {
  normals(out, mean, deviation, first, seed_, purpose_);
}
void RandomStream::fill_normal(std::span<double> out, double mean, double deviation,
                               std::uint64_t first) const {
  normals(out, mean, deviation, first, seed_, purpose_);
}
void RandomStream::fill_uniform(std::span<float> out, double low, double high, std::uint64_t first) const {
  uniforms(out, low, high, first, seed_, purpose_);
}
void RandomStream::fill_uniform(std::span<double> out, double low, double high, std::uint64_t first) const {
  uniforms(out, low, high, first, seed_, purpose_);
}

std::vector<std::int32_t> permutation(std::int32_t n, std::uint64_t seed, std::uint64_t epoch) {
  if (n < 0) throw UserError(fmt::format("a permutation of {} elements does not exist", n));
  const RandomStream stream(seed, "permutation", epoch);
  std::vector<std::int32_t> order(static_cast<std::size_t>(n));
  std::iota(order.begin(), order.end(), 0);
  for (std::uint64_t left = order.size(); left > 1; --left)
    std::swap(order[left - 1], order[stream.below(left, left - 1)]);
  return order;
}

}  // namespace gradflow
