// Probes: statistics, differences, exponent histograms, the alive mask.
#include "support.h"

namespace gradflow::kernels::test {
namespace {

class StatsTest : public BackendTest {
 public:
  template <class T>
  Stats measure(const std::vector<T>& x, PointwiseId op = PointwiseId::identity, std::size_t offset = 0,
                int times = 1) {
    DeviceArray<T> data(device(), x, offset);
    DeviceArray<Stats> s(device(), 1);
    for (int i = 0; i < times; ++i) device().stats({dtype_of<T>(), x.size(), data.data(), op, s.data()});
    device().synchronize();
    return s.front();
  }
};

TEST_P(StatsTest, EqualTheNaiveLoop) {
  Random random(41);
  for_each_real([&]<class T>() {
    for (const std::size_t n : kSizes)
      for (const std::size_t offset : kOffsets)
        for (const double scale : {1.0, 1e-31, 1e-38, 1e30}) {
          SCOPED_TRACE(fmt::format("{} n={} offset={} scale={}", name_of(dtype_of<T>()), n, offset, scale));
          const std::vector<T> x = random.normals<T>(n, scale);
          expect_stats(measure(x, PointwiseId::identity, offset), naive_stats(x), sum_of_magnitudes(x));
        }
    for (const std::size_t n :
         {std::size_t{7}, std::size_t{64}, std::size_t{1000}, std::size_t{2048}, std::size_t{50001}}) {
      const std::vector<T> x = random.wild<T>(n);
      for (const PointwiseId op : {PointwiseId::identity, PointwiseId::tanh, PointwiseId::sigmoid})
        expect_stats(measure(x, op), naive_stats(x, op), sum_of_magnitudes(x));
    }
  });
}

// One rare number among ordinary ones, at every position of a block and in the tail: none may be missed.
TEST_P(StatsTest, OneRareNumberIsFoundWhereverItIs) {
  for_each_real([&]<class T>() {
    using L = std::numeric_limits<T>;
    const T rare[] = {T(0),          T(-0.0),        L::denorm_min(), -L::denorm_min(),   L::min() / 2,
                      L::infinity(), -L::infinity(), L::quiet_NaN(),  L::signaling_NaN(), L::min(),
                      L::max()};
    for (const T value : rare)
      for (std::size_t at = 0; at < 75; ++at) {
        std::vector<T> x(75, T(0.5));
        x[at] = value;
        const Stats s = measure(x);
        const double v = static_cast<double>(value);
        ASSERT_EQ(s.count, 75u);
        ASSERT_EQ(s.zeros, v == 0 ? 1u : 0u) << v << " at " << at;
        ASSERT_EQ(s.nonfinite, std::isfinite(v) ? 0u : 1u) << v << " at " << at;
        ASSERT_EQ(s.denormals, std::fpclassify(value) == FP_SUBNORMAL ? 1u : 0u) << v << " at " << at;
        if (std::isnan(v))
          ASSERT_TRUE(std::isnan(s.max_abs())) << " at " << at;
        else
          ASSERT_EQ(s.max_abs(), std::max(0.5, std::fabs(v))) << " at " << at;
      }
  });
}

// A signaling NaN, which vector instructions do not pass over as they do over others, in the lane of the rest.
TEST_P(StatsTest, ASignalingNanHidesNothing) {
  for_each_real([&]<class T>() {
    using L = std::numeric_limits<T>;
    std::vector<T> x(1024, T(0.5));
    x[0] = 0, x[64] = -L::denorm_min(), x[128] = L::infinity(), x[192] = L::signaling_NaN();
    const Stats s = measure(x);
    EXPECT_EQ(s.zeros, 1u);
    EXPECT_EQ(s.denormals, 1u);
    EXPECT_EQ(s.nonfinite, 2u);
    EXPECT_TRUE(std::isnan(s.max_abs()));
  });
}

TEST_P(StatsTest, TilesFullOfRareNumbers) {
  for_each_real([&]<class T>() {
    for (const T value : {T(0), std::numeric_limits<T>::min() / 2, std::numeric_limits<T>::infinity()}) {
      const std::vector<T> x(6000, value);
      expect_stats(measure(x), naive_stats(x), sum_of_magnitudes(x));
    }
  });
}

TEST_P(StatsTest, TinySquaresSurvive) {
  const std::vector<float> x(1000, 1e-31f);
  const Stats s = measure(x);
  const double square = double(1e-31f) * double(1e-31f);
  EXPECT_NEAR(s.sum_squares / (1000 * square), 1.0, 1e-12);
  EXPECT_NEAR(s.norm() / (std::sqrt(1000.0) * double(1e-31f)), 1.0, 1e-12);
  EXPECT_EQ(s.zeros + s.denormals, 0u);
}

// What a claim rests on: norms and spreads, for numbers of any size, around any mean.
TEST_P(StatsTest, NormsAndSpreadsAreFarBetterThanTheBound) {
  Random random(44);
  for (const double scale : {1e-31, 1e-20, 3e-13, 1e-6, 1.0, 1e10, 1e18, 1e30})
    for (const double mean : {0.0, 0.3, 1.0, 10.0, 1000.0}) {
      SCOPED_TRACE(fmt::format("{} around {} times that", scale, mean));
      std::vector<float> x = random.normals<float>(40000, scale);
      for (float& v : x) v = static_cast<float>(v + mean * scale);
      const Stats got = measure(x);
      const double n = static_cast<double>(x.size());
      long double sum = 0, centered = 0, squares = 0;
      for (const float v : x) sum += v;
      for (const float v : x) centered += (v - sum / n) * (v - sum / n);
      for (const float v : x) squares += static_cast<long double>(v) * v;
      const double spread = std::sqrt(static_cast<double>(centered) / n);
      // f32 runs round 16 terms at random: 1e-7 a term at most, averaged over 2,500 runs. The spread is what
      // is left of two squares; a run counts as centered while its spread is at least 0.7 of its root mean
      // square, and f64 leaves 1e-16 * (mean/spread)^2 = 1e-10 of the others.
      EXPECT_NEAR(got.norm() / std::sqrt(static_cast<double>(squares)), 1.0, 2e-8);
      EXPECT_NEAR(got.standard_deviation() / spread, 1.0, 5e-8);
      EXPECT_TRUE(std::fabs(got.mean() - static_cast<double>(sum) / n) <=
                  2e-8 * std::sqrt(static_cast<double>(squares) / n));
    }
}

// Blocks of every kind behind one another: what one block was must not show in the next.
TEST_P(StatsTest, KindsOfNumbersMayFollowEachOther) {
  Random random(45);
  std::vector<float> x;
  for (int round = 0; round < 40; ++round) {
    const std::size_t n = 64 * (1 + random.below(40));
    const std::size_t kind = random.below(7);
    for (std::size_t i = 0; i < n; ++i) {
      const float v = random.normals<float>(1)[0];
      x.push_back(kind == 0   ? v
                  : kind == 1 ? std::max(v, 0.0f)
                  : kind == 2 ? 0.0f
                  : kind == 3 ? v * 1e-30f
                  : kind == 4 ? v * 1e-39f
                  : kind == 5 ? 5 + 0.01f * v
                              : v * 1e25f);
    }
  }
  for (const std::size_t skip : {0, 1, 17, 64, 1000}) {
    const std::vector<float> part(x.begin() + static_cast<std::ptrdiff_t>(skip), x.end());
    expect_stats(measure(part), naive_stats(part), sum_of_magnitudes(part));
  }
}

TEST_P(StatsTest, SinksAreAddedTo) {
  const std::vector<float> x = {1, -2, 0, 4};
  const Stats s = measure(x, PointwiseId::identity, 0, 3);
  EXPECT_EQ(s.count, 12u);
  EXPECT_EQ(s.sum, 9.0);
  EXPECT_EQ(s.sum_squares, 63.0);
  EXPECT_EQ(s.zeros, 3u);
  EXPECT_EQ(s.max_abs(), 4.0);
}

TEST(StatsStruct, DerivedNumbers) {
  Stats s;
  EXPECT_EQ(s.max_abs(), 0.0);
  EXPECT_EQ(s.standard_deviation(), 0.0);
  EXPECT_EQ(s.fraction(s.zeros), 0.0);
  s = {.sum = 6, .sum_squares = 20, .count = 2};  // 2 and 4
  EXPECT_EQ(s.mean(), 3.0);
  EXPECT_EQ(s.standard_deviation(), 1.0);
  s = {.sum = 3, .sum_squares = 3, .count = 3};
  EXPECT_EQ(s.standard_deviation(), 0.0);
  s = {.sum = 0.3, .sum_squares = 0.3 * 0.3 / 3 * (1 - 1e-15), .count = 3};  // rounding below zero
  EXPECT_EQ(s.standard_deviation(), 0.0);
  s.sum = std::numeric_limits<double>::quiet_NaN();
  EXPECT_TRUE(std::isnan(s.standard_deviation()));
}

TEST_P(StatsTest, DifferencesAreFormedInF64) {
  Random random(42);
  for_each_real([&]<class T>() {
    for (const std::size_t n : kSizes)
      for (const std::size_t offset : kOffsets) {
        SCOPED_TRACE(fmt::format("{} n={} offset={}", name_of(dtype_of<T>()), n, offset));
        const std::vector<T> a = random.normals<T>(n);
        std::vector<T> b = random.normals<T>(n, 0.1);
        for (std::size_t i = 0; i < n; i += 5) b[i] = a[i];
        for (std::size_t i = 1; i < n; i += 50) b[i] = std::nextafter(a[i], T(9));
        DeviceArray<T> da(device(), a, offset), db(device(), b);
        DeviceArray<Stats> s(device(), 1);
        DeviceArray<double> dot(device(), std::vector<double>{0.25});
        device().difference_stats({dtype_of<T>(), n, da.data(), db.data(), s.data(), dot.data()});
        device().synchronize();
        std::vector<double> difference(n);
        double want = 0.25, magnitude = 0.25;
        for (std::size_t i = 0; i < n; ++i) {
          difference[i] = double(a[i]) - double(b[i]);
          want += double(b[i]) * difference[i];
          magnitude += std::fabs(double(b[i]) * difference[i]);
        }
        expect_stats(s.front(),
                     naive_stats(difference, PointwiseId::identity, double(std::numeric_limits<T>::min())),
                     sum_of_magnitudes(difference));
        EXPECT_TRUE(std::fabs(dot.front() - want) <= double(n + 2) * epsilon<double>() * magnitude);
      }
  });
}

TEST_P(StatsTest, AnF32DifferenceThatIsDenormalInF32IsCounted) {
  DeviceArray<float> a(device(), {1.5e-38f, 1.0f, 0.0f}), b(device(), {1.4e-38f, 1.0f, 0.0f});
  DeviceArray<Stats> s(device(), 1);
  DeviceArray<double> dot(device(), 1);
  device().difference_stats({DType::f32, 3, a.data(), b.data(), s.data(), dot.data()});
  EXPECT_EQ(s.front().denormals, 1u);
  EXPECT_EQ(s.front().zeros, 2u);
}

TEST_P(StatsTest, ExponentHistogram) {
  for_each_real([&]<class T>() {
    std::vector<T> x;
    std::vector<std::uint64_t> want(kExponentBins, 3);  // bins are added to
    const auto expect_in = [&](double value, std::size_t bin) {
      x.push_back(static_cast<T>(value));
      x.push_back(static_cast<T>(-value));
      want[bin] += 2;
    };
    for (int e = kMinExponent; e <= kMaxExponent; ++e) {
      const std::size_t bin = static_cast<std::size_t>(1 + e - kMinExponent);
      expect_in(std::ldexp(1.0, e), bin);
      if (e > -148) expect_in(std::ldexp(1.75, e), bin);
      if (e > -126) expect_in(std::ldexp(2 - std::ldexp(1.0, -23), e), bin);  // the largest f32 of the bin
    }
    expect_in(0.0, kZeroBin);
    expect_in(std::numeric_limits<double>::infinity(), kInfinityBin);
    expect_in(std::numeric_limits<double>::quiet_NaN(), kNanBin);
    if (sizeof(T) == 8) {
      expect_in(1e300, 1 + kFiniteBins - 1);
      expect_in(1e-300, 1);
      expect_in(5e-324, 1);
    }
    while (x.size() < 30000) expect_in(1.0, 1 + 149);
    DeviceArray<T> data(device(), x, 1);
    DeviceArray<std::uint64_t> bins(device(), kExponentBins, 3);
    device().exponent_histogram({dtype_of<T>(), x.size(), data.data(), bins.data()});
    device().exponent_histogram({dtype_of<T>(), 0, data.data(), bins.data()});
    device().synchronize();
    EXPECT_EQ(bins.get(), want);
  });
}

TEST_P(StatsTest, MarkAlive) {
  Random random(43);
  for_each_real([&]<class T>() {
    for (const std::size_t rows : {0, 1, 3, 128})
      for (const std::size_t columns : {0, 1, 63, 65, 256}) {
        std::vector<T> y(rows * columns);
        for (T& v : y)
          v = random.below(20) ? static_cast<T>(random.below(2) ? -1 : 0)
                               : T(1e-40) + std::numeric_limits<T>::min();
        if (!y.empty()) y.back() = std::numeric_limits<T>::quiet_NaN();
        std::vector<std::uint8_t> want(columns);
        for (std::size_t c = 0; c < columns; ++c) want[c] = c % 7 == 0;
        DeviceArray<T> data(device(), y, 1);
        DeviceArray<std::uint8_t> alive(device(), want, 1);
        for (std::size_t i = 0; i < y.size(); ++i)
          if (y[i] > 0 || std::isnan(y[i])) want[i % columns] = 1;
        device().mark_alive({dtype_of<T>(), rows, columns, data.data(), alive.data()});
        device().synchronize();
        EXPECT_EQ(alive.get(), want) << rows << "x" << columns;
      }
  });
}

GRADFLOW_TEST_ON_BACKENDS(StatsTest);

}  // namespace
}  // namespace gradflow::kernels::test
