// Batch normalization against naive f64 loops and finite differences.
#include "support.h"

namespace gradflow::kernels::test {
namespace {

struct Case {
  std::size_t rows, channels;
};
constexpr Case kCases[] = {{1, 1},    {1, 7},     {2, 3},      {3, 31},     {31, 33},   {128, 256}, {5, 1025},
                           {4099, 1}, {1031, 17}, {2050, 300}, {20001, 16}, {9001, 10}, {601, 64}};

template <class T>
struct Layer {  // everything of one layer in device memory
  Layer(Backend& b, Case c, const std::vector<T>& x_values, const std::vector<T>& scales,
        const std::vector<T>& shifts, std::size_t offset = 0)
      : x(b, x_values, offset),
        y(b, x_values.size(), T(NAN), offset),
        scale(b, scales, offset),
        shift(b, shifts, offset),
        mean(b, c.channels, T(NAN)),
        inv_std(b, c.channels, T(NAN)),
        running_mean(b, c.channels, T(0.5)),
        running_variance(b, c.channels, T(2)) {}
  DeviceArray<T> x, y, scale, shift, mean, inv_std, running_mean, running_variance;

  BatchNormForward forward(Case c, bool affine, bool training) {
    return {dtype_of<T>(),
            c.rows,
            c.channels,
            x.data(),
            y.data(),
            affine ? scale.data() : nullptr,
            affine ? shift.data() : nullptr,
            mean.data(),
            inv_std.data(),
            running_mean.data(),
            running_variance.data(),
            0.1,
            1e-5,
            training};
  }
};

struct Moments {
  double mean = 0, variance = 0;
};
// In the widest type there is: an f64 sum in another order than the backend's would differ from it by more
// than the backend's own error.
template <class T>
Moments moments(const std::vector<T>& x, Case s, std::size_t c) {
  const long double rows = static_cast<long double>(s.rows);
  long double mean = 0, variance = 0;
  for (std::size_t r = 0; r < s.rows; ++r) mean += static_cast<long double>(x[r * s.channels + c]) / rows;
  for (std::size_t r = 0; r < s.rows; ++r) {
    const long double d = static_cast<long double>(x[r * s.channels + c]) - mean;
    variance += d * d / rows;
  }
  return {static_cast<double>(mean), static_cast<double>(variance)};
}

class BatchNorm : public BackendTest {
 public:
  // A mean of 100 standard deviations shows a careless subtraction.
  template <class T>
  std::vector<T> inputs(Random& random, Case c) {
    std::vector<T> x = random.normals<T>(c.rows * c.channels);
    for (std::size_t i = 0; i < x.size(); ++i) x[i] += static_cast<T>(i % c.channels % 3 == 2 ? 100 : 0);
    return x;
  }
};

TEST_P(BatchNorm, TrainingForward) {
  Random random(51);
  for_each_real([&]<class T>() {
    for (const Case c : kCases)
      for (const bool affine : {false, true}) {
        SCOPED_TRACE(fmt::format("{} {}x{} affine {}", name_of(dtype_of<T>()), c.rows, c.channels, affine));
        const std::vector<T> x = inputs<T>(random, c), scale = random.normals<T>(c.channels),
                             shift = random.normals<T>(c.channels);
        Layer<T> layer(device(), c, x, scale, shift, 1);
        device().batch_norm_forward(layer.forward(c, affine, true));
        device().synchronize();
        std::vector<double> y(x.size()), mean(c.channels), inv_std(c.channels), run_mean(c.channels),
            run_var(c.channels);
        for (std::size_t ch = 0; ch < c.channels; ++ch) {
          const Moments m = moments(x, c, ch);
          mean[ch] = m.mean;
          inv_std[ch] = 1 / std::sqrt(m.variance + 1e-5);
          const double unbiased = c.rows > 1 ? m.variance * double(c.rows) / double(c.rows - 1) : m.variance;
          run_mean[ch] = 0.9 * 0.5 + 0.1 * m.mean;
          run_var[ch] = 0.9 * 2 + 0.1 * unbiased;
          for (std::size_t r = 0; r < c.rows; ++r) {
            const std::size_t i = r * c.channels + ch;
            y[i] = (double(x[i]) - m.mean) * inv_std[ch] * (affine ? double(scale[ch]) : 1) +
                   (affine ? double(shift[ch]) : 0);
          }
        }
        // Moments are summed in f64 or compensated and rounded once; 4 roundings lead from x to y, of which
        // the first is of x - mean, relative to that difference.
        const auto relative = [](const std::vector<double>& v, double factor) {
          return [&v, factor](std::size_t i) { return factor * epsilon<T>() * (1 + std::fabs(v[i])); };
        };
        EXPECT_TRUE(all_near(layer.mean.get(), mean, relative(mean, 2)));
        EXPECT_TRUE(all_near(layer.inv_std.get(), inv_std, relative(inv_std, 4)));
        EXPECT_TRUE(all_near(layer.running_mean.get(), run_mean, relative(run_mean, 2)));
        EXPECT_TRUE(all_near(layer.running_variance.get(), run_var, relative(run_var, 4)));
        EXPECT_TRUE(all_near(layer.y.get(), y, [&](std::size_t i) {
          const double magnitude =
              std::fabs(y[i]) + (affine ? 2 * std::fabs(double(shift[i % c.channels])) : 0);
          // A device that subtracts the rounded mean errs by eps/2 * |mean| * inv_std * scale.
          const double far = std::fabs(mean[i % c.channels]) * inv_std[i % c.channels] *
                             (affine ? std::fabs(double(scale[i % c.channels])) : 1);
          // What the sum of x - mean (of size one), formed in f64, errs by.
          const double sum = 2 * epsilon<double>() * (affine ? std::fabs(double(scale[i % c.channels])) : 1);
          return 6 * epsilon<T>() * magnitude + epsilon<T>() * far + sum;
        }));
      }
  });
}

TEST_P(BatchNorm, EvaluationReadsTheRunningMoments) {
  Random random(52);
  for_each_real([&]<class T>() {
    for (const Case c : kCases) {
      const std::vector<T> x = random.normals<T>(c.rows * c.channels), scale = random.normals<T>(c.channels),
                           shift = random.normals<T>(c.channels);
      Layer<T> layer(device(), c, x, scale, shift);
      BatchNormForward a = layer.forward(c, true, false);
      a.y = layer.x.data();  // may alias x when nobody reads x later
      device().batch_norm_forward(a);
      device().synchronize();
      std::vector<double> y(x.size());
      for (std::size_t i = 0; i < x.size(); ++i)
        y[i] = (double(x[i]) - 0.5) / std::sqrt(2 + 1e-5) * double(scale[i % c.channels]) +
               double(shift[i % c.channels]);
      EXPECT_TRUE(all_near(layer.x.get(), y,
                           [&](std::size_t i) {
                             return 6 * epsilon<T>() *
                                    (std::fabs(y[i]) + 2 * std::fabs(double(shift[i % c.channels])) + 1);
                           }))
          << c.rows << "x" << c.channels;
      EXPECT_TRUE(all_same(layer.running_mean.get(), std::vector<T>(c.channels, T(0.5))));
      EXPECT_TRUE(all_same(layer.running_variance.get(), std::vector<T>(c.channels, T(2))));
      EXPECT_TRUE(all_same(layer.mean.get(), std::vector<T>(c.channels, T(NAN))));
    }
  });
}

TEST_P(BatchNorm, OneRowGivesTheShift) {
  DeviceArray<float> shift(device(), {0.25f, -3.0f});
  Layer<float> layer(device(), {1, 2}, {5, -7}, {2, 2}, {0.25f, -3});
  device().batch_norm_forward(layer.forward({1, 2}, true, true));
  EXPECT_TRUE(all_same(layer.y.get(), {0.25f, -3.0f}));
  for (const float v : layer.running_variance.get()) EXPECT_TRUE(std::isfinite(v));
}

// The naive backward in f64, and modes, aliasing and absent parameters.
TEST_P(BatchNorm, Backward) {
  Random random(53);
  for_each_real([&]<class T>() {
    for (const Case c : kCases)
      for (const int variant : {0, 1, 2, 3}) {  // overwrite, accumulate, dx aliases dy, without parameters
        SCOPED_TRACE(fmt::format("{} {}x{} variant {}", name_of(dtype_of<T>()), c.rows, c.channels, variant));
        const std::size_t n = c.rows * c.channels;
        const std::vector<T> x = random.normals<T>(n), scale = random.normals<T>(c.channels),
                             shift(c.channels);
        const std::vector<T> dy = random.normals<T>(n), old = random.normals<T>(n),
                             old_parameters = random.normals<T>(c.channels);
        const bool accumulate = variant == 1, affine = variant != 3;
        Layer<T> layer(device(), c, x, scale, shift);
        device().batch_norm_forward(layer.forward(c, affine, true));
        DeviceArray<T> d(device(), dy, 1), dx(device(), accumulate ? old : std::vector<T>(n, T(NAN)));
        const std::vector<T> start = accumulate ? old_parameters : std::vector<T>(c.channels, T(NAN));
        DeviceArray<T> dscale(device(), start), dshift(device(), start);
        const GradMode mode = accumulate ? GradMode::accumulate : GradMode::overwrite;
        DeviceArray<T>& to = variant == 2 ? d : dx;
        device().batch_norm_backward({dtype_of<T>(), c.rows, c.channels, layer.x.data(), d.data(),
                                      affine ? layer.scale.data() : nullptr, layer.mean.data(),
                                      layer.inv_std.data(), to.data(), mode, affine ? dscale.data() : nullptr,
                                      affine ? dshift.data() : nullptr, mode});
        device().synchronize();
        std::vector<double> want(n), want_scale(c.channels), want_shift(c.channels), size(n),
            sums(c.channels);
        for (std::size_t ch = 0; ch < c.channels; ++ch) {
          const Moments m = moments(x, c, ch);
          const double inv_std = 1 / std::sqrt(m.variance + 1e-5);
          const double blur = 1 + std::fabs(m.mean) * inv_std;
          double sum = 0, dot = 0, sum_magnitude = 0;
          for (std::size_t r = 0; r < c.rows; ++r) {
            const std::size_t i = r * c.channels + ch;
            const double xhat = (double(x[i]) - m.mean) * inv_std;
            sum += double(dy[i]);
            dot += double(dy[i]) * xhat;
            sum_magnitude += std::fabs(double(dy[i])) * (1 + std::fabs(xhat));
          }
          const double before = accumulate ? double(old_parameters[ch]) : 0;
          want_scale[ch] = before + dot;
          want_shift[ch] = before + sum;
          sums[ch] = blur * sum_magnitude + std::fabs(before);
          const double k = (affine ? double(scale[ch]) : 1) * inv_std, rows = double(c.rows);
          for (std::size_t r = 0; r < c.rows; ++r) {
            const std::size_t i = r * c.channels + ch;
            const double xhat = (double(x[i]) - m.mean) * inv_std;
            want[i] =
                (accumulate ? double(old[i]) : 0) + k * (double(dy[i]) - sum / rows - xhat * dot / rows);
            size[i] = std::fabs(k) * blur *
                          (std::fabs(double(dy[i])) + std::fabs(sum / rows) +
                           (1 + std::fabs(xhat)) * sum_magnitude / rows) +
                      std::fabs(accumulate ? double(old[i]) : 0);
          }
        }
        // mean and inv_std were rounded to T: xhat errs by a few eps * (1 + |mean| * inv_std), and every sum
        // and product with it relative to its magnitude.
        EXPECT_TRUE(all_near(to.get(), want, [&](std::size_t i) { return 16 * epsilon<T>() * size[i]; }));
        if (!affine) continue;
        EXPECT_TRUE(
            all_near(dscale.get(), want_scale, [&](std::size_t ch) { return 4 * epsilon<T>() * sums[ch]; }));
        EXPECT_TRUE(
            all_near(dshift.get(), want_shift, [&](std::size_t ch) { return 4 * epsilon<T>() * sums[ch]; }));
      }
  });
}

class BatchNormInF64 : public BatchNorm {};

// The loss sum(dy * y) as a function of x, scale and shift, differentiated numerically.
TEST_P(BatchNormInF64, BackwardAgreesWithFiniteDifferences) {
  Random random(54);
  const Case c{7, 3};
  const std::size_t n = c.rows * c.channels;
  std::vector<double> parameters[3] = {random.normals<double>(n, 2.0), random.normals<double>(3),
                                       random.normals<double>(3)};
  const std::vector<double> dy = random.normals<double>(n);
  const auto loss = [&] {
    Layer<double> layer(device(), c, parameters[0], parameters[1], parameters[2]);
    device().batch_norm_forward(layer.forward(c, true, true));
    device().synchronize();
    const std::vector<double> y = layer.y.get();
    double sum = 0;
    for (std::size_t i = 0; i < n; ++i) sum += y[i] * dy[i];
    return sum;
  };
  Layer<double> layer(device(), c, parameters[0], parameters[1], parameters[2]);
  device().batch_norm_forward(layer.forward(c, true, true));
  DeviceArray<double> d(device(), dy), dx(device(), n, NAN), dscale(device(), 3, NAN),
      dshift(device(), 3, NAN);
  device().batch_norm_backward({DType::f64, c.rows, c.channels, layer.x.data(), d.data(), layer.scale.data(),
                                layer.mean.data(), layer.inv_std.data(), dx.data(), GradMode::overwrite,
                                dscale.data(), dshift.data(), GradMode::overwrite});
  device().synchronize();
  const std::vector<double> gradients[3] = {dx.get(), dscale.get(), dshift.get()};
  for (int p = 0; p < 3; ++p) {
    double norm = 0;
    for (std::size_t i = 0; i < parameters[p].size(); ++i) {
      const double kept = parameters[p][i], h = std::cbrt(epsilon<double>()) * std::max(1.0, std::fabs(kept));
      parameters[p][i] = kept + h;
      const double high = loss();
      parameters[p][i] = kept - h;
      const double low = loss();
      parameters[p][i] = kept;
      const double want = (high - low) / (2 * h);
      EXPECT_TRUE(std::fabs(gradients[p][i] - want) <= 1e-7 * (1 + std::fabs(want)))
          << "input " << p << " element " << i;
      norm += want * want;
    }
    EXPECT_TRUE(std::sqrt(norm) >= 0.1) << "the gradient is too small for this check to mean anything";
  }
}

// What follows in the same passes against separate launches, with the same bits on the host: an activation,
// or an addition and an activation, every combination of gradient modes and of what lies over dy.
class BatchNormTail : public BackendTest {
 public:
  template <class T>
  ::testing::AssertionResult agree(const std::vector<T>& a, const std::vector<T>& b) {
    if (device().is_host()) return all_same(a, b);
    // A device contracts multiply-adds of its own choice in each kernel: a few roundings of numbers of
    // size 10.
    std::vector<double> want(b.begin(), b.end());
    return all_near(a, want, [](std::size_t) { return 100 * epsilon<T>(); });
  }
};

struct TailCase {
  PointwiseId op;
  bool skip;
  GradMode dx, dskip;
  int over_dy;  // 0: nothing, 1: dx, 2: dskip
};

std::vector<TailCase> tail_cases() {
  std::vector<TailCase> all;
  for (const PointwiseId op :
       {PointwiseId::identity, PointwiseId::relu, PointwiseId::tanh, PointwiseId::sigmoid}) {
    all.push_back({op, false, GradMode::overwrite, GradMode::none, 0});
    all.push_back({op, true, GradMode::overwrite, GradMode::overwrite, 0});
  }
  constexpr PointwiseId kRelu = PointwiseId::relu;
  all.push_back({kRelu, false, GradMode::accumulate, GradMode::none, 0});
  all.push_back({kRelu, false, GradMode::overwrite, GradMode::none, 1});
  all.push_back({kRelu, true, GradMode::overwrite, GradMode::accumulate, 1});
  all.push_back({kRelu, true, GradMode::accumulate, GradMode::overwrite, 2});
  all.push_back({kRelu, true, GradMode::overwrite, GradMode::none, 0});
  all.push_back({kRelu, true, GradMode::none, GradMode::overwrite, 0});
  return all;
}

TEST_P(BatchNormTail, IsTheSameAsSeparateLaunches) {
  Random random(55);
  for_each_real([&]<class T>() {
    constexpr DType type = dtype_of<T>();
    for (const Case c : {Case{1031, 17}, Case{131, 64}, Case{8195, 16}, Case{40, 300}})
      for (const TailCase& t : tail_cases()) {
        SCOPED_TRACE(fmt::format("{} {}x{} {}{} dx {} dskip {} over {}", name_of(type), c.rows, c.channels,
                                 info_of(t.op).name, t.skip ? " skip" : "", int(t.dx), int(t.dskip),
                                 t.over_dy));
        const std::size_t n = c.rows * c.channels;
        const std::vector<T> x = random.normals<T>(n), scale = random.normals<T>(c.channels),
                             shift = random.normals<T>(c.channels), skip = random.normals<T>(n),
                             dy = random.normals<T>(n), old_dx = random.normals<T>(n),
                             old_dskip = random.normals<T>(n);
        DeviceArray<Gates> gates(device(), std::vector<Gates>{{0.75f, -1.25f, 1.5f, 0.375f}});
        constexpr double kScale = 0.7;
        Layer<T> fused(device(), c, x, scale, shift), alone(device(), c, x, scale, shift);
        DeviceArray<T> pskip(device(), skip), branch(device(), n, T(0)), sum(device(), n, T(0));

        BatchNormForward f = fused.forward(c, true, true);
        f.op = t.op, f.skip = t.skip ? pskip.data() : nullptr, f.gates = gates.data(),
        f.branch_scale = kScale;
        device().batch_norm_forward(f);
        device().batch_norm_forward(alone.forward(c, true, true));
        if (t.skip)
          device().residual_forward(
              {type, n, pskip.data(), alone.y.data(), sum.data(), gates.data(), kScale});
        T* before = t.skip ? sum.data() : alone.y.data();
        device().pointwise_forward({.op = t.op, .dtype = type, .n = n, .x = before, .y = before});
        const std::vector<T> y = (t.skip ? sum : alone.y).get();
        EXPECT_TRUE(agree(fused.y.get(), y)) << "y";
        EXPECT_TRUE(agree(fused.running_mean.get(), alone.running_mean.get()));

        DeviceArray<T> pdy(device(), dy), dx(device(), old_dx), dskip(device(), old_dskip);
        DeviceArray<T> dscale(device(), c.channels, T(NAN)), dshift(device(), c.channels, T(NAN));
        DeviceArray<T>& to_dx = t.over_dy == 1 ? pdy : dx;
        DeviceArray<T>& to_dskip = t.over_dy == 2 ? pdy : dskip;
        device().batch_norm_backward({type,
                                      c.rows,
                                      c.channels,
                                      fused.x.data(),
                                      pdy.data(),
                                      fused.scale.data(),
                                      fused.mean.data(),
                                      fused.inv_std.data(),
                                      to_dx.data(),
                                      t.dx,
                                      dscale.data(),
                                      dshift.data(),
                                      GradMode::overwrite,
                                      t.op,
                                      fused.y.data(),
                                      t.skip,
                                      to_dskip.data(),
                                      t.dskip,
                                      gates.data(),
                                      kScale});
        DeviceArray<T> d(device(), dy), d_branch(device(), n, T(NAN)), want_dx(device(), old_dx),
            want_dskip(device(), old_dskip), want_dscale(device(), c.channels, T(NAN)),
            want_dshift(device(), c.channels, T(NAN));
        device().pointwise_backward(
            {.op = t.op, .dtype = type, .n = n, .saved = before, .dy = d.data(), .dx = d.data()});
        if (t.skip)
          device().residual_backward({type, n, d.data(), want_dskip.data(), t.dskip, d_branch.data(),
                                      GradMode::overwrite, gates.data(), kScale});
        device().batch_norm_backward({type, c.rows, c.channels, alone.x.data(),
                                      t.skip ? d_branch.data() : d.data(), alone.scale.data(),
                                      alone.mean.data(), alone.inv_std.data(), want_dx.data(), t.dx,
                                      want_dscale.data(), want_dshift.data()});
        EXPECT_TRUE(agree(to_dx.get(), t.over_dy == 1 || t.dx != GradMode::none ? want_dx.get() : old_dx))
            << "dx";
        if (t.skip && t.dskip != GradMode::none) {
          EXPECT_TRUE(agree(to_dskip.get(), want_dskip.get())) << "dskip";
        }
        if (device().is_host()) {
          EXPECT_TRUE(all_same(dscale.get(), want_dscale.get()));
          EXPECT_TRUE(all_same(dshift.get(), want_dshift.get()));
        }
      }
  });
}

TEST_P(BatchNormTail, AnActivationThatSavesItsInputIsRefused) {
  std::optional<PointwiseId> saves_input;
  ops::All::for_each([&]<class Op>() {
    if (Op::saves == Saves::x) saves_input = Op::id;
  });
  ASSERT_TRUE(saves_input) << "every operation saves its output: this test is of no use";
  EXPECT_THROW(device().batch_norm_forward({.op = *saves_input}), InternalError);
  EXPECT_THROW(device().batch_norm_backward({.op = *saves_input}), InternalError);
}

// Tall and narrow, as convolutions make them: rows are shared between threads, and the bits stay.
TEST(BatchNormThreads, ChangeNoBit) {
  Random random(56);
  const Case c{40003, 16};
  const std::vector<float> x = random.normals<float>(c.rows * c.channels), ones(c.channels, 1.0f);
  std::vector<std::vector<float>> results;
  for (const int threads : {1, 2, 3}) {
    const std::unique_ptr<Backend> backend = open_cpu(threads);
    Layer<float> layer(*backend, c, x, ones, ones);
    backend->batch_norm_forward(layer.forward(c, true, true));
    DeviceArray<float> dx(*backend, x.size(), 0.0f), dscale(*backend, c.channels, 0.0f),
        sum(*backend, c.channels, 0.0f);
    backend->batch_norm_backward({DType::f32, c.rows, c.channels, layer.x.data(), layer.y.data(), nullptr,
                                  layer.mean.data(), layer.inv_std.data(), dx.data(), GradMode::overwrite,
                                  dscale.data()});
    backend->column_sum({.rows = c.rows, .columns = c.channels, .x = layer.x.data(), .y = sum.data()});
    std::vector<float> all = layer.y.get();
    for (const auto* part : {&layer.mean, &layer.inv_std, &dx, &dscale, &sum})
      for (const float v : part->get()) all.push_back(v);
    results.push_back(all);
  }
  EXPECT_TRUE(all_same(results[1], results[0]));
  EXPECT_TRUE(all_same(results[2], results[0]));
}

GRADFLOW_TEST_ON_BACKENDS(BatchNorm);
GRADFLOW_TEST_ON_HOST(BatchNormInF64);
GRADFLOW_TEST_ON_BACKENDS(BatchNormTail);

}  // namespace
}  // namespace gradflow::kernels::test
