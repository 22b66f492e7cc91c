// Pointwise layers: closed-form values, accuracy over the whole range, finite differences, and the contract
// (sizes, alignment, aliasing, gradient modes, statistics sinks).
#include <numbers>

#include "support.h"

namespace gradflow::kernels::test {
namespace {

class Pointwise : public BackendTest {
 public:
  template <class T>
  std::vector<T> forward(PointwiseId op, const std::vector<T>& x, std::size_t offset = 0,
                         Stats* x_stats = nullptr, Stats* y_stats = nullptr, bool in_place = false) {
    DeviceArray<T> input(device(), x, offset), output(device(), x.size(), T(7), offset);
    T* y = in_place ? input.data() : output.data();
    device().pointwise_forward({op, dtype_of<T>(), x.size(), input.data(), y, x_stats, y_stats});
    device().synchronize();
    return in_place ? input.get() : output.get();
  }

  template <class T>
  std::vector<T> backward(PointwiseId op, const std::vector<T>& saved, const std::vector<T>& dy,
                          GradMode mode, const std::vector<T>& before, std::size_t offset = 0,
                          Stats* dy_stats = nullptr, Stats* dx_stats = nullptr, bool in_place = false) {
    DeviceArray<T> s(device(), saved, offset), gradient(device(), dy, offset), dx(device(), before, offset);
    T* to = in_place ? gradient.data() : dx.data();
    device().pointwise_backward(
        {op, dtype_of<T>(), dy.size(), s.data(), gradient.data(), to, mode, dy_stats, dx_stats});
    device().synchronize();
    return in_place ? gradient.get() : dx.get();
  }
};

double naive_sigmoid(double x) { return x < 0 ? std::exp(x) / (1 + std::exp(x)) : 1 / (1 + std::exp(-x)); }
double naive_normal_cdf(double x) { return std::erfc(-x / std::numbers::sqrt2) / 2; }

double naive_forward(PointwiseId op, double x) {
  switch (op) {
    case PointwiseId::identity: return x;
    case PointwiseId::relu: return x < 0 ? 0 : x;
    case PointwiseId::tanh: return std::tanh(x);
    case PointwiseId::sigmoid: return naive_sigmoid(x);
    case PointwiseId::leaky_relu: return x < 0 ? x / 100 : x;
    case PointwiseId::gelu: return x * naive_normal_cdf(x);
    case PointwiseId::silu: return x * naive_sigmoid(x);
    case PointwiseId::softplus: return x > 40 ? x : std::log1p(std::exp(x));
  }
  return 0;
}

double naive_derivative(PointwiseId op, double saved) {  // from what the op saves
  switch (op) {
    case PointwiseId::identity: return 1;
    case PointwiseId::relu: return saved <= 0 ? 0 : 1;
    case PointwiseId::tanh: return 1 - saved * saved;
    case PointwiseId::sigmoid: return saved * (1 - saved);
    case PointwiseId::leaky_relu: return saved > 0 ? 1 : 0.01;
    case PointwiseId::gelu:
      return naive_normal_cdf(saved) + saved * std::exp(-saved * saved / 2) / std::sqrt(2 * std::numbers::pi);
    case PointwiseId::silu: {
      const double s = naive_sigmoid(saved);
      return s + saved * s * (1 - s);
    }
    case PointwiseId::softplus: return 1 - std::exp(-saved);
  }
  return 0;
}

constexpr PointwiseId kOps[] = {PointwiseId::identity,   PointwiseId::relu, PointwiseId::tanh,
                                PointwiseId::sigmoid,    PointwiseId::gelu, PointwiseId::silu,
                                PointwiseId::leaky_relu, PointwiseId::softplus};

template <class T>
const std::vector<T>& saved_of(PointwiseId op, const std::vector<T>& x, const std::vector<T>& y) {
  return info_of(op).saves == Saves::y ? y : x;
}

TEST_P(Pointwise, EveryOpOfTheListIsTestedHere) { EXPECT_EQ(ops::All::size, std::size(kOps)); }

// Values known without a computer, or to more digits than f32 holds (from published tables).
TEST_P(Pointwise, ClosedFormValues) {
  for_each_real([&]<class T>() {
    using L = std::numeric_limits<T>;
    const T inf = L::infinity(), nan = L::quiet_NaN(), tiny = L::denorm_min();
    struct Row {
      PointwiseId op;
      T x, y;
    };
    const Row rows[] = {
        {PointwiseId::identity, T(-0.0), T(-0.0)},
        {PointwiseId::identity, tiny, tiny},
        {PointwiseId::identity, nan, nan},
        {PointwiseId::identity, -inf, -inf},
        {PointwiseId::relu, T(0), T(0)},
        {PointwiseId::relu, T(-0.0), T(-0.0)},
        {PointwiseId::relu, tiny, tiny},
        {PointwiseId::relu, -tiny, T(0)},
        {PointwiseId::relu, T(3.5), T(3.5)},
        {PointwiseId::relu, T(-3.5), T(0)},
        {PointwiseId::relu, inf, inf},
        {PointwiseId::relu, -inf, T(0)},
        {PointwiseId::relu, nan, nan},
        {PointwiseId::tanh, T(0), T(0)},
        {PointwiseId::tanh, T(-0.0), T(-0.0)},
        {PointwiseId::tanh, tiny, tiny},
        {PointwiseId::tanh, -tiny, -tiny},
        {PointwiseId::tanh, T(40), T(1)},
        {PointwiseId::tanh, T(-40), T(-1)},
        {PointwiseId::tanh, inf, T(1)},
        {PointwiseId::tanh, -inf, T(-1)},
        {PointwiseId::tanh, nan, nan},
        {PointwiseId::tanh, L::max(), T(1)},
        {PointwiseId::sigmoid, T(0), T(0.5)},
        {PointwiseId::sigmoid, T(-0.0), T(0.5)},
        {PointwiseId::sigmoid, tiny, T(0.5)},
        {PointwiseId::sigmoid, T(60), T(1)},
        {PointwiseId::sigmoid, inf, T(1)},
        {PointwiseId::sigmoid, -inf, T(0)},
        {PointwiseId::sigmoid, nan, nan},
        {PointwiseId::sigmoid, L::lowest(), T(0)},
        {PointwiseId::leaky_relu, T(-0.0), T(-0.0)},
        {PointwiseId::leaky_relu, tiny, tiny},
        {PointwiseId::leaky_relu, -tiny, T(-0.0)},
        {PointwiseId::leaky_relu, T(-8), T(-8) * T(0.01)},
        {PointwiseId::leaky_relu, T(8), T(8)},
        {PointwiseId::leaky_relu, -inf, -inf},
        {PointwiseId::leaky_relu, nan, nan},
        {PointwiseId::gelu, T(0), T(0)},
        {PointwiseId::gelu, T(-0.0), T(-0.0)},
        {PointwiseId::gelu, T(40), T(40)},
        {PointwiseId::gelu, T(-40), T(-0.0)},
        {PointwiseId::gelu, inf, inf},
        {PointwiseId::gelu, -inf, nan},
        {PointwiseId::gelu, nan, nan},
        {PointwiseId::gelu, L::max(), L::max()},
        {PointwiseId::silu, T(-0.0), T(-0.0)},
        {PointwiseId::silu, T(60), T(60)},
        {PointwiseId::silu, inf, inf},
        {PointwiseId::silu, -inf, nan},
        {PointwiseId::silu, nan, nan},
        {PointwiseId::softplus, T(60), T(60)},
        {PointwiseId::softplus, inf, inf},
        {PointwiseId::softplus, -inf, T(0)},
        {PointwiseId::softplus, nan, nan},
        {PointwiseId::softplus, L::max(), L::max()},
        {PointwiseId::softplus, L::lowest(), T(0)},
    };
    for (const Row& r : rows) {
      const T got = forward<T>(r.op, {r.x})[0];
      EXPECT_TRUE(same(got, r.y)) << info_of(r.op).name << "(" << r.x << ") = " << got << ", want " << r.y;
    }
    const Row rounded[] = {
        {PointwiseId::tanh, T(1), T(0.76159415595576488812L)},
        {PointwiseId::tanh, T(-0.5), T(-0.46211715726000975850L)},
        {PointwiseId::sigmoid, T(1), T(0.73105857863000487926L)},
        {PointwiseId::sigmoid, T(-1), T(0.26894142136999512074L)},
        {PointwiseId::gelu, T(1), T(0.84134474606854294858L)},
        {PointwiseId::gelu, T(-1), T(-0.15865525393145705141L)},
        {PointwiseId::gelu, T(-2), T(-0.045500263896358414401L)},
        {PointwiseId::silu, T(1), T(0.73105857863000487926L)},
        {PointwiseId::silu, T(-1), T(-0.26894142136999512074L)},
        {PointwiseId::softplus, T(0), T(0.69314718055994530942L)},
        {PointwiseId::softplus, T(1), T(1.31326168751822283405L)},
        {PointwiseId::softplus, T(-1), T(0.31326168751822283405L)},
    };
    for (const Row& r : rounded) {
      const T got = forward<T>(r.op, {r.x})[0];
      EXPECT_TRUE(std::fabs(got - r.y) <= 3 * L::epsilon() * std::fabs(r.y))
          << info_of(r.op).name << " " << got;
    }
    // exp(-100) = 3.7200759760208360e-44: a denormal f32 (27 units of 2^-149, rounded), not 0.
    for (const PointwiseId op : {PointwiseId::sigmoid, PointwiseId::softplus}) {
      const T small = forward<T>(op, {T(-100)})[0];
      EXPECT_TRUE(std::fabs(double(small) - 3.7200759760208360e-44) <= std::max(0.75 * double(tiny), 1e-58))
          << small;
    }
  });
}

TEST_P(Pointwise, BackwardClosedFormValues) {
  for_each_real([&]<class T>() {
    using L = std::numeric_limits<T>;
    const T nan = L::quiet_NaN();
    struct Row {
      PointwiseId op;
      T y, dy, dx;  // y: what is saved
    };
    const T inf = L::infinity(), tiny = L::denorm_min();
    const Row rows[] = {
        {PointwiseId::identity, T(9), T(-2), T(-2)}, {PointwiseId::relu, T(0), T(5), T(0)},
        {PointwiseId::relu, T(-0.0), T(5), T(0)},    {PointwiseId::relu, L::denorm_min(), T(5), T(5)},
        {PointwiseId::relu, T(2), T(-5), T(-5)},     {PointwiseId::relu, nan, T(5), T(5)},
        {PointwiseId::relu, T(0), nan, T(0)},        {PointwiseId::relu, T(1), nan, nan},
        {PointwiseId::tanh, T(0), T(3), T(3)},       {PointwiseId::tanh, T(1), T(3), T(0)},
        {PointwiseId::tanh, T(-0.5), T(4), T(3)},    {PointwiseId::tanh, nan, T(3), nan},
        {PointwiseId::sigmoid, T(0.5), T(4), T(1)},  {PointwiseId::sigmoid, T(0), T(4), T(0)},
        {PointwiseId::sigmoid, T(1), T(4), T(0)},    {PointwiseId::sigmoid, T(0.25), T(-16), T(-3)},
        {PointwiseId::leaky_relu, T(2), T(-5), T(-5)},
        {PointwiseId::leaky_relu, T(-2), T(-5), T(-5) * T(0.01)},
        {PointwiseId::leaky_relu, T(0), T(5), T(5) * T(0.01)},
        {PointwiseId::leaky_relu, nan, T(5), T(5) * T(0.01)},
        {PointwiseId::gelu, T(-0.0), T(5), T(2.5)},
        {PointwiseId::gelu, T(40), T(5), T(5)},
        {PointwiseId::gelu, T(-40), T(5), T(0)},
        {PointwiseId::gelu, inf, T(5), nan},
        {PointwiseId::gelu, -inf, T(5), nan},
        {PointwiseId::gelu, nan, T(5), nan},
        {PointwiseId::silu, T(0), T(5), T(2.5)},
        {PointwiseId::silu, T(100), T(5), T(5)},
        {PointwiseId::silu, inf, T(5), nan},
        {PointwiseId::silu, nan, T(5), nan},
        {PointwiseId::softplus, T(0), T(5), T(0)},
        {PointwiseId::softplus, tiny, T(5), T(5) * tiny},
        {PointwiseId::softplus, T(100), T(5), T(5)},
        {PointwiseId::softplus, inf, T(5), T(5)},
        {PointwiseId::softplus, nan, T(5), nan},
    };
    for (const Row& r : rows) {
      const T got = backward<T>(r.op, {r.y}, {r.dy}, GradMode::overwrite, {nan})[0];
      EXPECT_TRUE(same(got, r.dx)) << info_of(r.op).name << "'(" << r.y << ")*" << r.dy << " = " << got;
    }
  });
}

// One f32 in 1021 over all 2^32 bit patterns, against f64. Error in units in the last place of the result,
// where the spacing below the smallest normal number is that of the denormals.
TEST_P(Pointwise, FloatsOverTheWholeRangeAreAccurateToAFewUlp) {
  std::vector<float> x;
  for (std::uint64_t bits = 0; bits < (std::uint64_t{1} << 32); bits += 1021) {
    const std::uint32_t b = static_cast<std::uint32_t>(bits);
    float v;
    std::memcpy(&v, &b, sizeof v);
    x.push_back(v);
  }
  for (int i = -20000; i <= 20000; ++i) x.push_back(static_cast<float>(i) * 0.0053f);  // where the bends are
  // The host's normal distribution has 4 ulp, gelu one product more; CUDA documents 5 ulp for its normal distribution.
  const std::pair<PointwiseId, double> limits[] = {{PointwiseId::tanh, 3},
                                                   {PointwiseId::sigmoid, 3},
                                                   {PointwiseId::gelu, GetParam()[1] == 'u' ? 6 : 5},
                                                   {PointwiseId::silu, 3},
                                                   {PointwiseId::softplus, 3}};
  for (const auto& [op, limit] : limits) {
    const std::vector<float> y = forward<float>(op, x);
    double worst = 0;
    float where = 0;
    for (std::size_t i = 0; i < x.size(); ++i) {
      const double want = naive_forward(op, static_cast<double>(x[i]));
      if (std::isnan(want)) {
        ASSERT_TRUE(std::isnan(y[i])) << x[i];
        continue;
      }
      if (std::isinf(static_cast<float>(want))) {
        ASSERT_EQ(y[i], static_cast<float>(want));
        continue;
      }
      const float rounded = std::fabs(static_cast<float>(want));
      // x P(x) and x s(x) multiply the unit of a denormal P or s.
      const double denormal =
          std::ldexp(info_of(op).saves == Saves::x ? std::max(1.0, std::fabs(double(x[i]))) : 1.0, -149);
      const double ulp = std::max(denormal, std::ldexp(1.0, std::ilogb(std::max(rounded, 1e-38f)) - 23));
      const double error = std::fabs(static_cast<double>(y[i]) - want) / ulp;
      ASSERT_TRUE(error <= limit) << info_of(op).name << "(" << x[i] << ") = " << y[i] << ", want " << want;
      ASSERT_EQ(std::signbit(y[i]), std::signbit(want)) << x[i];
      if (error > worst) {
        worst = error;
        where = x[i];
      }
    }
    fmt::print("  {} worst error {:.2f} ulp at {}\n", info_of(op).name, worst, where);
  }
}

class PointwiseInF64 : public Pointwise {};

// Central differences in f64 with a random signed cotangent. Step h = cbrt(eps) * max(1, |x|): the truncation
// error h^2 |f'''| / 6 and the rounding error eps / h are both below 1e-10 for these functions.
TEST_P(PointwiseInF64, BackwardAgreesWithFiniteDifferences) {
  Random random(11);
  for (const PointwiseId op : kOps) {
    const std::size_t n = 500;
    const std::vector<double> x = random.normals<double>(n, 2.0), dy = random.normals<double>(n);
    const std::vector<double> y = forward<double>(op, x);
    const std::vector<double> dx =
        backward<double>(op, saved_of(op, x, y), dy, GradMode::overwrite, std::vector<double>(n, NAN));
    std::vector<double> up = x, down = x, h(n);
    for (std::size_t i = 0; i < n; ++i) {
      h[i] = std::cbrt(epsilon<double>()) * std::max(1.0, std::fabs(x[i]));
      up[i] = x[i] + h[i];
      down[i] = x[i] - h[i];
    }
    const std::vector<double> high = forward<double>(op, up), low = forward<double>(op, down);
    std::size_t excluded = 0;
    double norm = 0;
    for (std::size_t i = 0; i < n; ++i) {
      if (info_of(op).negative_slope && std::fabs(x[i]) < 10 * h[i]) {
        ++excluded;
        continue;
      }
      const double want = dy[i] * (high[i] - low[i]) / (up[i] - down[i]);
      EXPECT_TRUE(std::fabs(dx[i] - want) <= 1e-8 * (1 + std::fabs(dy[i])))
          << info_of(op).name << " at " << x[i];
      norm += dx[i] * dx[i];
    }
    EXPECT_LE(excluded, n / 100);  // at the kink
    EXPECT_TRUE(std::sqrt(norm) >= 1) << "the gradient is too small for this check to mean anything";
  }
}

TEST_P(Pointwise, AnyLengthAlignmentAndAliasing) {
  Random random(12);
  for_each_real([&]<class T>() {
    for (const PointwiseId op : kOps)
      for (const std::size_t n : kSizes)
        for (const std::size_t offset : kOffsets) {
          SCOPED_TRACE(fmt::format("{} n={} offset={}", info_of(op).name, n, offset));
          const std::vector<T> x = random.normals<T>(n, 2.0), dy = random.normals<T>(n),
                               old = random.normals<T>(n);
          const std::vector<T> y = forward<T>(op, x, offset);
          std::vector<double> want(n);
          for (std::size_t i = 0; i < n; ++i) want[i] = naive_forward(op, static_cast<double>(x[i]));
          // GELU's tail exp(-x^2/2) has the relative error of x^2: f32 takes it out, <cmath> does not.
          const bool tail = op == PointwiseId::gelu && sizeof(T) == 8;
          EXPECT_TRUE(all_near(y, want, [&](std::size_t i) {
            return (op == PointwiseId::gelu ? 6 : 3) * epsilon<T>() * std::fabs(want[i]) *
                   (tail ? 1 + double(x[i] * x[i]) : 1);
          }));
          EXPECT_TRUE(all_same(forward<T>(op, x, offset, nullptr, nullptr, true), y));
          EXPECT_TRUE(all_same(forward<T>(op, x, 1 - offset), y)) << "alignment changes the result";

          const std::vector<T> nans(n, std::numeric_limits<T>::quiet_NaN());
          const std::vector<T>& saved = saved_of(op, x, y);
          const std::vector<T> dx = backward<T>(op, saved, dy, GradMode::overwrite, nans, offset);
          for (std::size_t i = 0; i < n; ++i)
            want[i] = naive_derivative(op, static_cast<double>(saved[i])) * static_cast<double>(dy[i]);
          // 1 - y*y and y*(1-y) lose at most one rounding of 1 to cancellation; gelu and silu add a second
          // term of their functions' own errors.
          const double ulps = info_of(op).saves == Saves::y ? 3 : 6;
          EXPECT_TRUE(all_near(dx, want,
                               [&](std::size_t i) { return ulps * epsilon<T>() * std::fabs(double(dy[i])); }));
          EXPECT_TRUE(all_same(
              backward<T>(op, saved, dy, GradMode::overwrite, nans, offset, nullptr, nullptr, true), dx));
          const std::vector<T> sum = backward<T>(op, saved, dy, GradMode::accumulate, old, offset);
          for (std::size_t i = 0; i < n; ++i)
            want[i] = static_cast<double>(old[i]) + static_cast<double>(dx[i]);
          EXPECT_TRUE(all_near(sum, want, [&](std::size_t i) {
            return epsilon<T>() * (std::fabs(want[i]) + std::fabs(static_cast<double>(dx[i])));
          }));
          EXPECT_TRUE(all_same(backward<T>(op, saved, dy, GradMode::none, old, offset), old));
        }
  });
}

TEST_P(Pointwise, SinksMeasureAndChangeNoBit) {
  Random random(13);
  for_each_real([&]<class T>() {
    for (const PointwiseId op : kOps)
      for (const std::size_t n : kSizes)
        for (const bool in_place : {false, true}) {
          SCOPED_TRACE(fmt::format("{} n={} in place {}", info_of(op).name, n, in_place));
          const std::vector<T> x = random.wild<T>(n), dy = random.wild<T>(n), old = random.normals<T>(n);
          const std::vector<T> y = forward<T>(op, x);
          DeviceArray<Stats> s(device(), 4);
          EXPECT_TRUE(all_same(forward<T>(op, x, 0, s.data(), s.data() + 1, in_place), y));
          const GradMode mode = in_place ? GradMode::overwrite : GradMode::accumulate;
          const std::vector<T> dx = backward<T>(op, y, dy, mode, old);
          EXPECT_TRUE(
              all_same(backward<T>(op, y, dy, mode, old, 0, s.data() + 2, s.data() + 3, in_place), dx));
          const std::vector<Stats> got = s.get();
          expect_stats(got[0], naive_stats(x), sum_of_magnitudes(x));
          expect_stats(got[1], naive_stats(y, op), sum_of_magnitudes(y));
          expect_stats(got[2], naive_stats(dy), sum_of_magnitudes(dy));
          expect_stats(got[3], naive_stats(dx), sum_of_magnitudes(dx));
        }
  });
}

TEST_P(Pointwise, SaturationMeansADerivativeBelowFivePercentOfItsMaximum) {
  // tanh: 1 - y^2 < 0.05 from |x| = atanh(sqrt(0.95)) = 2.178 on; sigmoid: twice that.
  const std::vector<float> x = {-5.0f, -4.34f, -2.19f, -2.16f, 0.0f, 2.16f, 2.19f, 4.34f, 4.37f, 5.0f};
  DeviceArray<Stats> s(device(), 2);
  forward<float>(PointwiseId::tanh, x, 0, nullptr, s.data());
  forward<float>(PointwiseId::sigmoid, x, 0, nullptr, s.data() + 1);
  EXPECT_EQ(s.get()[0].saturated, 7u);
  EXPECT_EQ(s.get()[1].saturated, 3u);
}

GRADFLOW_TEST_ON_BACKENDS(Pointwise);
GRADFLOW_TEST_ON_HOST(PointwiseInF64);

}  // namespace
}  // namespace gradflow::kernels::test
