#include "gradflow/engine/random.h"

// Keep this file free of contraction of a * b + c into one rounding (set in engine/CMakeLists.txt): on
// a machine with fused multiply-add it would change the last bit of normal numbers.
#include <fmt/format.h>

#include <numeric>
#include <utility>

#include "gradflow/kernels/error.h"
#include "gradflow/kernels/random.h"

namespace gradflow {
namespace {

using philox::Block, philox::draw, philox::normal_pair, philox::unit;
using philox::kBelow, philox::kNormal, philox::kUniform;

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
  const auto [w] = philox::rounds({{counter[0], counter[1], counter[2], counter[3]}}, key[0], key[1]);
  return {w[0], w[1], w[2], w[3]};
}

RandomStream::RandomStream(std::uint64_t seed, std::string_view purpose, std::uint64_t number)
    : seed_(seed), purpose_(scramble(hash(purpose) + number * 0x9e3779b97f4a7c15u)) {}

std::uint64_t RandomStream::bits64(std::uint64_t index) const {
  const Block block = draw(seed_, purpose_, index / 2, kUniform);
  return index % 2 == 0 ? block.first : block.second;
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
    const Wide product = static_cast<Wide>(attempt < 256 ? block.first : block.second) * bound;
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
