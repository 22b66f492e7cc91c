#include "gradflow/engine/random.h"

#include <gtest/gtest.h>
#include <omp.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <map>
#include <set>

#include "gradflow/kernels/backend.h"

namespace gradflow {
namespace {

// The known answers that the authors of Philox publish for philox4x32 with 10 rounds.
TEST(Random, PhiloxKnownAnswers) {
  using Words = std::array<std::uint32_t, 4>;
  EXPECT_EQ(philox_block({0, 0, 0, 0}, {0, 0}), (Words{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  const std::uint32_t f = 0xffffffff;
  EXPECT_EQ(philox_block({f, f, f, f}, {f, f}), (Words{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(philox_block({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}),
            (Words{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

// Pins the counter layout and the arithmetic: these bits are part of what a checkpoint, a published
// result or another machine relies on. The normal values were computed apart, in Python's decimal
// module with 50 digits, from the published algorithm and the layout in random.cpp.
TEST(Random, GoldenValues) {
  const RandomStream stream(42, "golden");
  EXPECT_EQ(stream.bits64(0), 0x3a17df0e55f4477cu);
  EXPECT_EQ(stream.bits64(1), 0x0036ac83f0138438u);
  EXPECT_DOUBLE_EQ(stream.normal(0), -1.1839651791685748);
  EXPECT_DOUBLE_EQ(stream.normal(1), 0.6478049060480668);
  EXPECT_DOUBLE_EQ(stream.normal(123456789), 2.90233254210714);
}

// Bit for bit, on every machine: fails if a compiler fuses multiply and add in random.cpp.
TEST(Random, NormalsAreTheSameBitsEverywhere) {
  const RandomStream stream(1, "everywhere");
  std::uint64_t hash = 0xcbf29ce484222325u;
  for (std::uint64_t i = 0; i < 10'000; ++i)
    hash = (hash ^ std::bit_cast<std::uint64_t>(stream.normal(i))) * 0x100000001b3u;
  EXPECT_EQ(hash, 4803738161312095620u);
}

TEST(Random, FillsEqualSingleDraws) {
  const RandomStream stream(7, "fill");
  for (std::size_t n : {0u, 1u, 2u, 3u, 1000u, 70001u}) {
    for (std::uint64_t first : {0u, 1u, 5u}) {
      std::vector<double> normals(n), uniforms(n);
      std::vector<float> narrow(n), narrow_uniforms(n);
      stream.fill_normal(normals, 0.5, 2.0, first);
      stream.fill_normal(narrow, 0.5, 2.0, first);
      stream.fill_uniform(uniforms, -1.0, 3.0, first);
      stream.fill_uniform(narrow_uniforms, -1.0, 3.0, first);
      for (std::size_t i = 0; i < n; ++i) {
        ASSERT_EQ(normals[i], 0.5 + 2.0 * stream.normal(first + i)) << i;
        ASSERT_EQ(narrow[i], static_cast<float>(normals[i])) << i;
        ASSERT_EQ(uniforms[i], -1.0 + 4.0 * stream.uniform(first + i)) << i;
        ASSERT_EQ(narrow_uniforms[i], static_cast<float>(uniforms[i])) << i;
      }
    }
  }
}

TEST(Random, ThreadCountChangesNoBit) {
  const RandomStream stream(3, "threads");
  const int before = omp_get_max_threads();
  std::vector<float> one(100'003), many(one.size());
  omp_set_num_threads(1);
  stream.fill_normal(one, 0, 1);
  for (int threads : {2, 3, 5}) {
    omp_set_num_threads(threads);
    std::fill(many.begin(), many.end(), 0.0f);
    stream.fill_normal(many, 0, 1);
    EXPECT_EQ(one, many) << threads << " threads";
  }
  omp_set_num_threads(before);
}

// Mean, variance, skewness and kurtosis of n normals have standard errors 1, sqrt(2), sqrt(6), sqrt(24)
// over sqrt(n); five of them are exceeded with chance 6e-7, and the seed is fixed.
TEST(Random, NormalMoments) {
  const std::size_t n = 1'000'000;
  std::vector<double> x(n);
  RandomStream(1, "moments").fill_normal(x, 0, 1);
  double m1 = 0, m2 = 0, m3 = 0, m4 = 0, neighbours = 0;
  for (std::size_t i = 0; i < n; ++i) {
    m1 += x[i];
    m2 += x[i] * x[i];
    m3 += x[i] * x[i] * x[i];
    m4 += x[i] * x[i] * x[i] * x[i];
    if (i % 2 == 0) neighbours += x[i] * x[i + 1];  // the two of one Box-Muller pair
  }
  const double count = static_cast<double>(n), error = 5 / std::sqrt(count);
  EXPECT_TRUE(std::abs(m1 / count) <= error) << m1 / count;
  EXPECT_TRUE(std::abs(m2 / count - 1) <= std::sqrt(2.0) * error) << m2 / count;
  EXPECT_TRUE(std::abs(m3 / count) <= std::sqrt(15.0) * error) << m3 / count;
  EXPECT_TRUE(std::abs(m4 / count - 3) <= std::sqrt(96.0) * error) << m4 / count;
  EXPECT_TRUE(std::abs(neighbours / count * 2) <= std::sqrt(2.0) * error) << neighbours;
}

// Kolmogorov and Smirnov: the greatest distance to the true distribution, times sqrt(n), exceeds 2.2
// with chance 1.3e-4; 1.95 would be 1e-3.
double kolmogorov_smirnov(std::vector<double> values, double (*cumulative)(double)) {
  std::sort(values.begin(), values.end());
  const double n = static_cast<double>(values.size());
  double worst = 0;
  for (std::size_t i = 0; i < values.size(); ++i) {
    const double f = cumulative(values[i]), k = static_cast<double>(i);
    worst = std::max({worst, std::abs(f - k / n), std::abs((k + 1) / n - f)});
  }
  return worst * std::sqrt(n);
}

TEST(Random, DistributionsFit) {
  for (std::uint64_t seed : {1u, 2u, 3u}) {
    std::vector<double> x(200'000);
    const RandomStream stream(seed, "fit");
    stream.fill_normal(x, 0, 1);
    const double normal =
        kolmogorov_smirnov(x, [](double v) { return 0.5 * std::erfc(-v * std::sqrt(0.5)); });
    EXPECT_TRUE(normal <= 2.2) << normal;
    stream.fill_uniform(x, 0, 1);
    const double uniform = kolmogorov_smirnov(x, [](double v) { return v; });
    EXPECT_TRUE(uniform <= 2.2) << uniform;
    // The test of the test: a normal that is 2% too wide must be seen.
    stream.fill_normal(x, 0, 1.02);
    const double wide = kolmogorov_smirnov(x, [](double v) { return 0.5 * std::erfc(-v * std::sqrt(0.5)); });
    EXPECT_GT(wide, 2.2);
  }
}

// (a^2 + b^2) / 2 of a pair is exponentially distributed, its angle uniformly: a wrong logarithm shows in
// the one, a wrong quadrant or sine in the other.
TEST(Random, PairsHaveTheRightRadiusAndAngle) {
  const RandomStream stream(5, "box-muller");
  std::vector<double> radius(100'000), angle(100'000);
  for (std::size_t i = 0; i < radius.size(); ++i) {
    const double a = stream.normal(2 * i), b = stream.normal(2 * i + 1);
    radius[i] = (a * a + b * b) / 2;
    angle[i] = std::atan2(b, a);
  }
  EXPECT_TRUE(kolmogorov_smirnov(radius, [](double r) { return 1 - std::exp(-r); }) <= 2.2);
  EXPECT_TRUE(kolmogorov_smirnov(angle, [](double t) { return t / 6.283185307179586 + 0.5; }) <= 2.2);
}

TEST(Random, RangesAreAsPromised) {
  const RandomStream stream(9, "ranges");
  for (std::uint64_t i = 0; i < 100'000; ++i) {
    const double u = stream.uniform(i), v = stream.uniform_positive(i);
    ASSERT_TRUE(u >= 0 && u < 1);
    ASSERT_TRUE(v > 0 && v <= 1);
    ASSERT_EQ(stream.bits32(i), stream.bits64(i) >> 32);
    ASSERT_TRUE(std::abs(stream.normal(i)) < 8.6);
  }
}

TEST(Random, StreamsDiffer) {
  std::set<std::uint64_t> seen;
  for (std::uint64_t seed : {0ull, 1ull, 1ull << 32, ~0ull})
    for (const char* purpose : {"", "a", "b", "ab", "ba"})
      for (std::uint64_t number : {0u, 1u, 2u}) seen.insert(RandomStream(seed, purpose, number).bits64(0));
  EXPECT_EQ(seen.size(), 4u * 5u * 3u);
  // Uniform and normal numbers do not share blocks either: were they the same, the normal's radius would
  // be a function of the uniform.
  const RandomStream stream(1, "kinds");
  EXPECT_NE(std::sqrt(-2 * std::log(stream.uniform_positive(0))),
            std::hypot(stream.normal(0), stream.normal(1)));
}

TEST(Random, BelowIsUniformAndBounded) {
  const RandomStream stream(11, "below");
  std::vector<int> count(7);
  for (std::uint64_t i = 0; i < 70'000; ++i) ++count.at(stream.below(7, i));
  double chi2 = 0;
  for (int c : count) chi2 += (c - 10'000.0) * (c - 10'000.0) / 10'000.0;
  EXPECT_TRUE(chi2 <= 27.9) << chi2;  // 6 degrees of freedom, chance 1e-4
  for (std::uint64_t i = 0; i < 100; ++i) {
    EXPECT_EQ(stream.below(1, i), 0u);
    EXPECT_LT(stream.below((1ull << 63) + 1, i), (1ull << 63) + 1);  // half of the draws are rejected
  }
}

TEST(Random, PermutationsArePermutationsAndUniform) {
  EXPECT_TRUE(permutation(0, 1, 0).empty());
  EXPECT_EQ(permutation(1, 1, 0), std::vector<std::int32_t>{0});
  std::vector<std::int32_t> order = permutation(10'000, 1, 0);
  EXPECT_EQ(order, permutation(10'000, 1, 0));
  EXPECT_NE(order, permutation(10'000, 1, 1));
  EXPECT_NE(order, permutation(10'000, 2, 0));
  std::sort(order.begin(), order.end());
  for (std::int32_t i = 0; i < 10'000; ++i) ASSERT_EQ(order[static_cast<std::size_t>(i)], i);

  std::map<std::vector<std::int32_t>, int> count;
  for (std::uint64_t epoch = 0; epoch < 24'000; ++epoch) ++count[permutation(4, 5, epoch)];
  EXPECT_EQ(count.size(), 24u);
  double chi2 = 0;
  for (const auto& [p, c] : count) chi2 += (c - 1000.0) * (c - 1000.0) / 1000.0;
  EXPECT_TRUE(chi2 <= 58.6) << chi2;  // 23 degrees of freedom, chance 6e-5
}

// A backend draws the numbers of a stream itself, bit for bit: parameters may be initialized where they lie.
TEST(Random, BackendsDrawTheSameNumbers) {
  const auto cpu = kernels::open_cpu(2);
  const RandomStream stream(0x123456789abcdefu, "init/block07.linear.weight", 3);
  for (const std::uint64_t first : {0u, 1u, 1000u}) {
    std::vector<float> want(5001), got(5001);
    std::vector<double> wide(5001), wide_got(5001);
    kernels::RandomFill fill{.dtype = DType::f32, .n = got.size(), .x = got.data(),
                             .distribution = kernels::Distribution::normal, .a = 0.25, .b = 0.05,
                             .seed = stream.seed(), .purpose = stream.purpose(), .first = first};
    stream.fill_normal(want, fill.a, fill.b, first);
    cpu->random_fill(fill);
    EXPECT_EQ(got, want);
    fill.dtype = DType::f64;
    fill.x = wide_got.data();
    stream.fill_normal(wide, fill.a, fill.b, first);
    cpu->random_fill(fill);
    EXPECT_EQ(wide_got, wide);
    fill.distribution = kernels::Distribution::uniform;
    stream.fill_uniform(wide, fill.a, fill.b, first);
    cpu->random_fill(fill);
    EXPECT_EQ(wide_got, wide);
  }
}

}  // namespace
}  // namespace gradflow
