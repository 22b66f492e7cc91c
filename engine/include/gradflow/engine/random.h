// Random numbers by position, not by history.
//
//   RandomStream stream(seed, "init/block07.linear.weight");
//   stream.fill_normal(weights, 0.0, 0.05);      // weights[i] depends on (seed, name, i) and nothing else
//
// A stream is a function from an index to a number: there is no state to carry, save or share, so a
// resumed run, another thread count or another order of calls gives the same bits, and two networks
// that name a weight alike share it bit for bit. The numbers come from Philox4x32-10 (Salmon, Moraes,
// Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011).
//
// Normal numbers use only +, -, *, / and sqrt, which IEEE 754 rounds in one way, and their own
// logarithm, sine and cosine (error below 1e-15): no mathematics library can change a bit.
//
// Uniform and normal numbers of one stream come from separate counters and are independent, as are
// streams of different name, number or seed.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

namespace gradflow {

// The generator itself: ten rounds of Philox with four 32-bit words.
std::array<std::uint32_t, 4> philox_block(std::array<std::uint32_t, 4> counter,
                                          std::array<std::uint32_t, 2> key);

class RandomStream {
 public:
  // `purpose` says what the numbers are for ("init/conv1.weight", "shuffle"); 64 bits of its hash enter
  // the counter. `number` tells apart streams of one purpose (the epoch of a shuffle).
  RandomStream(std::uint64_t seed, std::string_view purpose, std::uint64_t number = 0);

  // The index must be below 2^48 (not checked).
  std::uint32_t bits32(std::uint64_t index) const;
  std::uint64_t bits64(std::uint64_t index) const;
  double uniform(std::uint64_t index) const;           // in [0, 1), a multiple of 2^-53
  double uniform_positive(std::uint64_t index) const;  // in (0, 1]: 1 - uniform(index)
  double normal(std::uint64_t index) const;            // mean 0, variance 1, |value| < 8.6
  // In [0, bound), each value exactly equally likely; bound >= 1.
  std::uint64_t below(std::uint64_t bound, std::uint64_t index) const;

  // out[i] = mean + deviation * normal(first + i), and low + (high - low) * uniform(first + i), computed
  // in f64 and rounded once to the type of `out`: f32 and f64 networks start from the same numbers.
  // (Rounding can give `high` itself.) Parallel; the thread count changes no bit.
  void fill_normal(std::span<float> out, double mean, double deviation, std::uint64_t first = 0) const;
  void fill_normal(std::span<double> out, double mean, double deviation, std::uint64_t first = 0) const;
  void fill_uniform(std::span<float> out, double low, double high, std::uint64_t first = 0) const;
  void fill_uniform(std::span<double> out, double low, double high, std::uint64_t first = 0) const;

  // What a backend's RandomFill needs to draw the same numbers.
  std::uint64_t seed() const noexcept { return seed_; }
  std::uint64_t purpose() const noexcept { return purpose_; }

 private:
  std::uint64_t seed_;
  std::uint64_t purpose_;
};

// 0 .. n-1 in an order drawn uniformly from all n! (Fisher-Yates); UserError if n is negative.
std::vector<std::int32_t> permutation(std::int32_t n, std::uint64_t seed, std::uint64_t epoch);

}  // namespace gradflow
