// Column sums, softmax cross-entropy, and gathering a batch.
#include "support.h"

namespace gradflow::kernels::test {
namespace {

class Reductions : public BackendTest {};

TEST_P(Reductions, ColumnSum) {
  Random random(61);
  for_each_real([&]<class T>() {
    for (const std::size_t rows : {0, 1, 2, 33, 128, 5000})
      for (const std::size_t columns : {0, 1, 3, 63, 65, 256})
        for (const GradMode mode : {GradMode::none, GradMode::overwrite, GradMode::accumulate}) {
          SCOPED_TRACE(fmt::format("{} {}x{} mode {}", name_of(dtype_of<T>()), rows, columns, int(mode)));
          const std::vector<T> x = random.normals<T>(rows * columns);
          const bool prefilled = mode != GradMode::overwrite || rows == 0;
          const std::vector<T> old = prefilled ? random.normals<T>(columns) : std::vector<T>(columns, T(NAN));
          DeviceArray<T> data(device(), x, rows % 2), y(device(), old, 1);
          device().column_sum({dtype_of<T>(), rows, columns, data.data(), y.data(), mode});
          device().synchronize();
          if (rows == 0 && mode == GradMode::overwrite)
            continue;  // either untouched or zero: nobody relies on it
          std::vector<double> want(columns), size(columns);
          for (std::size_t c = 0; c < columns; ++c) {
            want[c] = mode == GradMode::overwrite ? 0 : double(old[c]);
            size[c] = std::fabs(want[c]);
            if (mode == GradMode::none) continue;
            for (std::size_t r = 0; r < rows; ++r) {
              want[c] += double(x[r * columns + c]);
              size[c] += std::fabs(double(x[r * columns + c]));
            }
          }
          // Accumulated in more than T's precision, or in T over short runs: far below sqrt(rows) eps.
          EXPECT_TRUE(all_near(y.get(), want, [&](std::size_t c) { return 4 * epsilon<T>() * size[c]; }));
        }
  });
}

struct Loss {
  double sum = 0;
  std::vector<double> gradient;
  std::uint64_t correct = 0;
};

template <class T>
Loss naive_loss(const std::vector<T>& logits, const std::vector<std::int32_t>& labels, std::size_t classes) {
  Loss loss;
  for (std::size_t r = 0; r < labels.size(); ++r) {
    const T* x = logits.data() + r * classes;
    const std::size_t label = static_cast<std::size_t>(labels[r]);
    double top = double(x[0]);
    std::size_t best = 0;
    bool nan = false;
    for (std::size_t c = 0; c < classes; ++c) {
      nan = nan || std::isnan(x[c]);
      if (double(x[c]) > top) {
        top = double(x[c]);
        best = c;
      }
    }
    double sum = 0;
    for (std::size_t c = 0; c < classes; ++c) sum += std::exp(double(x[c]) - top);
    loss.sum += std::log(sum) - (double(x[label]) - top);
    for (std::size_t c = 0; c < classes; ++c)
      loss.gradient.push_back((std::exp(double(x[c]) - top) / sum - (c == label)) / double(labels.size()));
    loss.correct += !nan && best == label;
  }
  return loss;
}

class Softmax : public BackendTest {
 public:
  template <class T>
  LossResult run(const std::vector<T>& logits, const std::vector<std::int32_t>& labels, std::size_t classes,
                 std::vector<T>* gradient, bool in_place = false, std::size_t offset = 0,
                 LossResult start = {}) {
    DeviceArray<T> x(device(), logits, offset), dx(device(), logits.size(), T(NAN), offset);
    DeviceArray<std::int32_t> on_device(device(), labels);
    DeviceArray<LossResult> result(device(), std::vector<LossResult>{start});
    T* to = !gradient ? nullptr : in_place ? x.data() : dx.data();
    device().softmax_cross_entropy(
        {dtype_of<T>(), labels.size(), classes, x.data(), on_device.data(), to, result.data()});
    device().synchronize();
    if (gradient) *gradient = in_place ? x.get() : dx.get();
    return result.front();
  }
};

TEST_P(Softmax, EqualsTheNaiveLoop) {
  Random random(62);
  for_each_real([&]<class T>() {
    for (const std::size_t rows : {0, 1, 3, 128, 2000})
      for (const std::size_t classes : {1, 2, 10, 33, 1025})
        for (const double scale : {1.0, 1e4}) {
          if (rows * classes > 500000) continue;
          SCOPED_TRACE(fmt::format("{} {}x{} scale {}", name_of(dtype_of<T>()), rows, classes, scale));
          const std::vector<T> logits = random.normals<T>(rows * classes, scale);
          std::vector<std::int32_t> labels(rows);
          for (auto& l : labels) l = static_cast<std::int32_t>(random.below(classes));
          const Loss want = naive_loss(logits, labels, classes);
          std::vector<T> gradient, in_place;
          const LossResult got = run<T>(logits, labels, classes, &gradient, false, 1, {10, 5, 2});
          // x - max is rounded once, relative to itself (1e4 * eps at most matters little: exp of it is
          // tiny); exp and the sum err by a few eps.
          const double per_row = 8 * epsilon<T>() * (1 + 4 * scale);
          EXPECT_TRUE(std::fabs(got.loss_sum - 10 - want.sum) <=
                      per_row * (double(rows) + std::fabs(want.sum)) + 1e-12);
          EXPECT_EQ(got.rows, rows + 5);
          EXPECT_EQ(got.correct, want.correct + 2);
          EXPECT_TRUE(all_near(gradient, want.gradient,
                               [&](std::size_t) { return 8 * epsilon<T>() * (1 + scale) / double(rows); }));
          run<T>(logits, labels, classes, &in_place, true);
          EXPECT_TRUE(all_same(in_place, gradient));
          const LossResult evaluation = run<T>(logits, labels, classes, nullptr, false, 1, {10, 5, 2});
          EXPECT_EQ(evaluation.loss_sum, got.loss_sum);
          EXPECT_EQ(evaluation.correct, got.correct);
        }
  });
}

// The classes of ImageNet, with every label beyond a byte and the last one.
TEST_P(Softmax, AThousandClasses) {
  Random random(65);
  const std::size_t classes = 1000;
  const std::vector<std::int32_t> labels = {999, 256, 0, 255, 999, 743};
  for_each_real([&]<class T>() {
    std::vector<T> logits = random.normals<T>(labels.size() * classes, 3.0), gradient;
    logits[999] = T(20);                // right
    logits[2 * classes + 999] = T(20);  // wrong
    const Loss want = naive_loss(logits, labels, classes);
    EXPECT_TRUE(want.correct >= 1 && want.correct < labels.size());
    const LossResult got = run<T>(logits, labels, classes, &gradient);
    // exp errs by a few eps and by eps |x - max|, below 40 here; so does its sum.
    EXPECT_TRUE(std::fabs(got.loss_sum - want.sum) <= 50 * epsilon<T>() * (double(labels.size()) + want.sum));
    EXPECT_EQ(got.correct, want.correct);
    EXPECT_EQ(got.rows, labels.size());
    EXPECT_TRUE(all_near(gradient, want.gradient, [&](std::size_t i) {
      return 50 * epsilon<T>() * std::fabs(want.gradient[i]) + 1e-30;
    }));
    for (std::size_t r = 0; r < labels.size(); ++r)
      for (std::size_t c = 0; c < classes; ++c)  // below 0 for the label alone
        ASSERT_EQ(gradient[r * classes + c] < 0, c == static_cast<std::size_t>(labels[r])) << r << " " << c;
  });
}

TEST_P(Softmax, ClosedFormValues) {
  for_each_real([&]<class T>() {
    std::vector<T> dx;
    LossResult r = run<T>({1, 1, 1, 1}, {2}, 4, &dx);  // uniform: log 4; the lowest index wins a tie
    EXPECT_NEAR(r.loss_sum, std::log(4.0), 4 * epsilon<T>());
    EXPECT_EQ(r.correct, 0u);
    EXPECT_NEAR(double(dx[2]), -0.75, epsilon<T>());
    EXPECT_NEAR(double(dx[0]), 0.25, epsilon<T>());
    EXPECT_EQ(run<T>({1, 1, 1, 1}, {0}, 4, nullptr).correct, 1u);
    r = run<T>({T(1e4), T(-1e4)}, {0}, 2, &dx);  // certain and right
    EXPECT_EQ(r.loss_sum, 0.0);
    EXPECT_TRUE(all_same(dx, {T(0), T(0)}));
    r = run<T>({T(1e4), T(-1e4)}, {1}, 2, &dx);  // certain and wrong
    EXPECT_EQ(r.loss_sum, 2e4);
    EXPECT_TRUE(all_same(dx, {T(1), T(-1)}));
    EXPECT_EQ(r.correct, 0u);
  });
}

TEST_P(Softmax, ARowWithNanIsNeverCorrectAndPoisonsOnlyItself) {
  for_each_real([&]<class T>() {
    const T nan = std::numeric_limits<T>::quiet_NaN();
    for (std::size_t at = 0; at < 3; ++at) {
      std::vector<T> logits = {5, 1, 1, 5, 1, 1}, dx;
      logits[at] = nan;
      const LossResult r = run<T>(logits, {0, 0}, 3, &dx);
      EXPECT_TRUE(std::isnan(r.loss_sum));
      EXPECT_EQ(r.correct, 1u);
      for (std::size_t i = 0; i < 6; ++i) EXPECT_EQ(std::isnan(dx[i]), i < 3) << i;
    }
    const T inf = std::numeric_limits<T>::infinity();
    EXPECT_TRUE(std::isnan(run<T>({inf, 1}, {0}, 2, nullptr).loss_sum));  // Inf - Inf
    EXPECT_EQ(run<T>({-inf, 1}, {1}, 2, nullptr).loss_sum, 0.0);
    EXPECT_EQ(run<T>({-inf, 1}, {0}, 2, nullptr).loss_sum, double(inf));
  });
}

class SoftmaxInF64 : public Softmax {};

TEST_P(SoftmaxInF64, GradientAgreesWithFiniteDifferences) {
  Random random(63);
  const std::size_t rows = 5, classes = 7;
  std::vector<double> x = random.normals<double>(rows * classes, 2.0), dx;
  const std::vector<std::int32_t> labels = {0, 6, 3, 3, 1};
  run<double>(x, labels, classes, &dx);
  double norm = 0;
  for (std::size_t i = 0; i < x.size(); ++i) {
    const double kept = x[i], h = 6e-6 * std::max(1.0, std::fabs(kept));
    x[i] = kept + h;
    const double high = run<double>(x, labels, classes, nullptr).loss_sum;
    x[i] = kept - h;
    const double low = run<double>(x, labels, classes, nullptr).loss_sum;
    x[i] = kept;
    const double want = (high - low) / (2 * h) / double(rows);
    EXPECT_TRUE(std::fabs(dx[i] - want) <= 1e-9) << i;
    norm += want * want;
  }
  EXPECT_TRUE(std::sqrt(norm) >= 0.05);
}

TEST_P(Reductions, GatherBatch) {
  Random random(64);
  const std::size_t images = 50;
  for_each_real([&]<class T>() {
    for (const std::size_t features : {1, 3, 33, 784})
      for (const std::size_t batch : {0, 1, 7, 128}) {
        std::vector<std::uint8_t> pixels(images * features);
        std::vector<std::uint16_t> labels(images);
        for (auto& p : pixels) p = static_cast<std::uint8_t>(random.below(256));
        for (auto& l : labels) l = static_cast<std::uint16_t>(random.below(1 << 16));
        if (batch == 7) labels.assign(images, 0xffff);
        std::vector<std::int32_t> indices(batch);
        for (auto& i : indices) i = static_cast<std::int32_t>(random.below(images));
        DeviceArray<std::uint8_t> p(device(), pixels, 1);
        DeviceArray<std::uint16_t> l(device(), labels);
        DeviceArray<std::int32_t> chosen(device(), indices), y(device(), batch, -1);
        DeviceArray<T> x(device(), batch * features, T(NAN), 1);
        device().gather_batch({dtype_of<T>(), batch, features, p.data(), l.data(), chosen.data(), 0.2860f,
                               2.5f, x.data(), y.data()});
        device().synchronize();
        std::vector<double> want(batch * features);
        for (std::size_t i = 0; i < want.size(); ++i) {
          const std::size_t source = static_cast<std::size_t>(indices[i / features]);
          want[i] = (pixels[source * features + i % features] / 255.0 - double(0.2860f)) * 2.5;
        }
        EXPECT_TRUE(all_near(x.get(), want, [&](std::size_t) { return 5 * epsilon<T>(); }));
        const std::vector<std::int32_t> got = y.get();
        for (std::size_t b = 0; b < batch; ++b)
          EXPECT_EQ(got[b], labels[static_cast<std::size_t>(indices[b])]);
      }
  });
}

GRADFLOW_TEST_ON_BACKENDS(Reductions);
GRADFLOW_TEST_ON_BACKENDS(Softmax);
GRADFLOW_TEST_ON_HOST(SoftmaxInF64);

}  // namespace
}  // namespace gradflow::kernels::test
