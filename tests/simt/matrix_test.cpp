// Kernels over rows and columns, against the host backend: sums, batch norm, softmax, batches.
#include "simt/harness.h"

namespace gradflow::kernels::cuda {
namespace {

constexpr MatrixShape kShapes[] = {{1, 1},   {2, 3},   {3, 33},   {33, 10}, {128, 40},
                             {700, 5}, {5, 300}, {2050, 1}, {64, 64}};

// One rounding to f32 of a sum formed in f64.
constexpr double kOneRounding = 1.2e-7;

class Matrix : public VectorTest {};

TEST_F(Matrix, ColumnSum) {
  for (const auto [rows, columns] : kShapes) {
    for (const GradMode mode : {GradMode::none, GradMode::overwrite, GradMode::accumulate}) {
      for (const std::size_t offset : {0u, 1u}) {  // packs of columns where they come in fours, or single ones
        SIMT_CASE(rows << "x" << columns << " mode " << static_cast<int>(mode) << " offset=" << offset);
        compare(kOneRounding, 1e-3, [&](Backend& backend) {
          const Array<float> x(backend, numbers(rows * columns, 1), offset), y(backend, numbers(columns, 2), 1);
          backend.column_sum({.rows = rows, .columns = columns, .x = x.data(), .y = y.data(), .mode = mode});
          return y.read();
        });
      }
    }
  }
}

TEST_F(Matrix, EmptyMatricesTouchNothing) {
  const Array<float> y(simt, std::vector<float>{5, 6});
  simt.column_sum({.rows = 0, .columns = 2, .y = y.data()});
  EXPECT_EQ(y.read(), (std::vector<float>{5, 6}));
  simt.batch_norm_forward({.rows = 0, .channels = 2});
  simt.batch_norm_backward({.rows = 0, .channels = 2});
  simt.mark_alive({.rows = 0, .columns = 2});
  LossResult result;
  simt.softmax_cross_entropy({.rows = 0, .classes = 2, .result = &result});
  EXPECT_EQ(result.rows, 0u);
  simt.gather_batch({.batch = 0, .features = 2});
}

TEST_F(Matrix, MarkAlive) {
  for (const auto [rows, columns] : kShapes) {
    for (const std::size_t offset : {0u, 1u}) {
      SIMT_CASE(rows << "x" << columns << " offset=" << offset);
      std::vector<float> x = numbers(rows * columns, 3, true);
      for (std::size_t i = 0; i < x.size(); ++i) {
        if (i % columns % 3 != 0 || (i / columns) % 97 != 1) x[i] = -std::fabs(x[i]);  // NaN stays
      }
      const Array<float> in(simt, x, offset);
      const Array<std::uint8_t> got(simt, std::vector<std::uint8_t>(columns));
      const Array<std::uint8_t> want(*cpu, std::vector<std::uint8_t>(columns));
      simt.mark_alive({.rows = rows, .columns = columns, .y = in.data(), .alive = got.data()});
      cpu->mark_alive({.rows = rows, .columns = columns, .y = in.data(), .alive = want.data()});
      EXPECT_EQ(got.read(), want.read());
    }
  }
}

TEST_F(Matrix, BroadcastRows) {
  for (const std::size_t columns : {45u, 44u}) {  // one by one, and in packs
    const auto product = simt.prepare_matmul({.m = 37, .n = static_cast<int>(columns), .k = 0, .bias = true});
    const std::vector<float> bias = numbers(columns, 4);
    const Array<float> b(simt, bias), y(simt, 37 * columns);
    product->run(nullptr, nullptr, b.data(), y.data(), nullptr);
    const std::vector<float> got = y.read();
    for (std::size_t i = 0; i < got.size(); ++i) ASSERT_EQ(got[i], bias[i % columns]);
  }
}

// The kernels' xhat is formed in f32 from rounded means: a few roundings, enlarged by |mean| / std, 100 at
// most here, at outputs of size one.
constexpr double kBatchNormTolerance = 100 * 4 * 6e-8;

TEST_F(Matrix, BatchNormForward) {
  for (const auto [rows, channels] : kShapes) {
    for (const bool training : {true, false}) {
      for (const bool affine : {true, false}) {
        for (const float center : {0.0f, 100.0f}) {
          SIMT_CASE(rows << "x" << channels << " training=" << training << " affine=" << affine
                         << " center=" << center);
          compare(kBatchNormTolerance, 1.0, [&](Backend& backend) {
            std::vector<float> values = numbers(rows * channels, 5);
            for (float& v : values) v += center;
            // Aligned for every other shape: with channels in fours, that is the path in packs.
            const Array<float> x(backend, values), y(backend, rows * channels, rows % 2);
            const Array<float> scale(backend, numbers(channels, 6)), shift(backend, numbers(channels, 7));
            const Array<float> mean(backend, channels), inv_std(backend, channels);
            const Array<float> running_mean(backend, numbers(channels, 8));
            const Array<float> running_variance(backend, std::vector<float>(channels, 2.0f));
            BatchNormForward a{.rows = rows, .channels = channels, .x = x.data(), .y = y.data()};
            if (affine) {
              a.scale = scale.data();
              a.shift = shift.data();
              a.mean = mean.data();
              a.inv_std = inv_std.data();
            }
            a.running_mean = running_mean.data();
            a.running_variance = running_variance.data();
            a.training = training;
            if (rows == 1)
              a.epsilon = 1.0;  // one row has no variance: 1/sqrt(epsilon) would enlarge roundings
            backend.batch_norm_forward(a);
            std::vector<float> all = y.read();
            for (const auto* part : {&mean, &inv_std, &running_mean, &running_variance})
              append(all, part->read());
            return all;
          });
        }
      }
    }
  }
}

// The mean's rounding to f32 would show as a common offset of all outputs, some 1e-3 of their size here.
TEST_F(Matrix, BatchNormOfValuesFarFromZeroIsCentered) {
  std::vector<float> values(128);
  for (std::size_t k = 0; k < values.size(); ++k)
    values[k] = 1000.0f + static_cast<float>(k) * 0x1p-12f * 1.01f;
  double mean = 0;
  for (const float v : values) mean += static_cast<double>(v) / 128.0;
  const double rounding = mean - static_cast<double>(static_cast<float>(mean));
  ASSERT_GT(std::fabs(rounding), 1e-6) << "the inputs must have a mean that is no float";
  const Array<float> x(simt, values), y(simt, values.size());
  BatchNormForward a{.rows = values.size(), .channels = 1, .x = x.data(), .y = y.data()};
  a.epsilon = 1e-12;
  simt.batch_norm_forward(a);
  double sum = 0;
  for (const float v : y.read()) sum += static_cast<double>(v);
  EXPECT_TRUE(std::fabs(sum / 128.0) <= 1e-6) << sum;
}

TEST_F(Matrix, BatchNormBackward) {
  for (const auto [rows, channels] : kShapes) {
    for (const GradMode mode : {GradMode::none, GradMode::overwrite, GradMode::accumulate}) {
      for (const GradMode parameters : {GradMode::none, GradMode::overwrite, GradMode::accumulate}) {
        SIMT_CASE(rows << "x" << channels << " modes " << static_cast<int>(mode)
                       << static_cast<int>(parameters));
        const bool in_place = mode == GradMode::overwrite && parameters == GradMode::none;
        // Some roundings of numbers of size one to ten; the sums' own error is f64's, one rounding each follows.
        compare(16 * 6e-8, 4.0, [&](Backend& backend) {
          const Array<float> x(backend, numbers(rows * channels, 9)),
              dy(backend, numbers(rows * channels, 10));
          const Array<float> mean(backend, numbers(channels, 11)), scale(backend, numbers(channels, 12));
          const Array<float> inv_std(backend, std::vector<float>(channels, 0.7f));
          const Array<float> old(backend, numbers(rows * channels, 13));
          const Array<float> dscale(backend, numbers(channels, 14)), dshift(backend, numbers(channels, 15));
          const Array<float>& dx = in_place ? dy : old;
          BatchNormBackward a{.rows = rows, .channels = channels, .x = x.data(), .dy = dy.data()};
          a.scale = parameters == GradMode::none ? nullptr : scale.data();
          a.mean = mean.data();
          a.inv_std = inv_std.data();
          a.dx = dx.data();
          a.dx_mode = mode;
          a.dscale = dscale.data();
          a.dshift = dshift.data();
          a.parameter_mode = parameters;
          backend.batch_norm_backward(a);
          std::vector<float> all = dx.read();
          for (const auto* part : {&dscale, &dshift}) append_sums(all, part->read(), rows);
          return all;
        });
      }
    }
  }
}

TEST_F(Matrix, SoftmaxCrossEntropy) {
  for (const auto [rows, classes] :
       {MatrixShape{1, 1}, MatrixShape{1, 2}, MatrixShape{3, 10}, MatrixShape{40, 33}, MatrixShape{300, 10},
        MatrixShape{37, 12}, MatrixShape{9, 1000}, MatrixShape{3, 1028}, MatrixShape{2, 2500}}) {
    for (const bool in_place : {false, true}) {
      for (const int kind : {0, 1, 2}) {  // ordinary, tied and large, with NaN and infinities
        // Packs of logits where they come in fours, or single ones; 1 to 32 lanes a row.
        const std::size_t offset = (classes / 4 + static_cast<std::size_t>(kind)) % 2;
        SIMT_CASE(rows << "x" << classes << " kind " << kind << " in_place=" << in_place);
        std::vector<float> logits = numbers(rows * classes, 16, kind == 2);
        if (kind == 1) {
          for (float& v : logits) v = std::round(v) * 40.0f;
        }
        std::vector<std::int32_t> labels(rows);
        for (std::size_t r = 0; r < rows; ++r) labels[r] = static_cast<std::int32_t>(classes - 1 - r * 7 % classes);
        std::vector<LossResult> results;
        // exp of two libraries and a division, on probabilities below one over `rows`.
        compare(8 * 1.2e-7, 1.0 / static_cast<double>(rows), [&](Backend& backend) {
          LossResult result{.loss_sum = 1, .rows = 2, .correct = 3};
          const Array<float> x(backend, logits, offset), d(backend, logits.size());
          const Array<std::int32_t> l(backend, labels);
          float* dlogits = in_place ? x.data() : d.data();
          SoftmaxCrossEntropy a{.rows = rows, .classes = classes, .logits = x.data(), .labels = l.data()};
          a.dlogits = dlogits;
          a.result = &result;
          backend.softmax_cross_entropy(a);
          results.push_back(result);
          return (in_place ? x : d).read();
        });
        const LossResult &got = results.front(), &want = results.back();
        EXPECT_EQ(got.rows, want.rows);
        EXPECT_EQ(got.correct, want.correct);
        if (std::isnan(want.loss_sum)) {
          EXPECT_TRUE(std::isnan(got.loss_sum));
        } else {
          // Some roundings to f32 of each row's sum of exponentials; with one class there is nothing to round.
          EXPECT_TRUE(std::fabs(got.loss_sum - want.loss_sum) <= 1e-6 * std::fabs(want.loss_sum));
        }
      }
    }
  }
}

TEST_F(Matrix, SoftmaxInEvaluationAndWithABadLabel) {
  const Array<float> x(simt, std::vector<float>{1, 2, 3, 1, 2, 3});
  LossResult result;
  const Array<std::int32_t> good(simt, std::vector<std::int32_t>{2, 0});
  simt.softmax_cross_entropy(
      {.rows = 2, .classes = 3, .logits = x.data(), .labels = good.data(), .result = &result});
  EXPECT_EQ(result.correct, 1u);
  EXPECT_NEAR(result.loss_sum, 0.40760596 + 2.40760596, 1e-6);  // log(1 + e^-1 + e^-2), plus 2 for the second
  const Array<std::int32_t> bad(simt, std::vector<std::int32_t>{3, -1});
  simt.softmax_cross_entropy(
      {.rows = 2, .classes = 3, .logits = x.data(), .labels = bad.data(), .result = &result});
  EXPECT_TRUE(std::isnan(result.loss_sum));
  EXPECT_EQ(result.correct, 1u);
}

TEST_F(Matrix, GatherBatch) {
  for (const auto [batch, features] : {MatrixShape{1, 1}, MatrixShape{5, 784}, MatrixShape{33, 7}, MatrixShape{300, 3}}) {
    for (const std::size_t offset : {0u, 1u}) {  // packs of features where they come in fours, or single ones
      SIMT_CASE(batch << "x" << features << " offset=" << offset);
      const std::size_t images = 50;
      std::vector<std::uint8_t> pixels(images * features);
      std::vector<std::uint16_t> labels(images);
      for (std::size_t i = 0; i < pixels.size(); ++i) pixels[i] = static_cast<std::uint8_t>(i * 37 % 256);
      for (std::size_t i = 0; i < images; ++i) labels[i] = static_cast<std::uint16_t>(65535 - 1000 * i);
      std::vector<std::int32_t> indices(batch);
      for (std::size_t i = 0; i < batch; ++i) indices[i] = static_cast<std::int32_t>(i * 13 % images);
      std::vector<std::int32_t> got_labels, want_labels;
      compare(kOneRounding, 1e-6, [&](Backend& backend) {
        const Array<std::uint8_t> p(backend, pixels, offset);
        const Array<std::uint16_t> l(backend, labels);
        const Array<std::int32_t> at(backend, indices), y(backend, batch);
        const Array<float> x(backend, batch * features);
        GatherBatch a{.batch = batch, .features = features, .images = p.data(), .labels = l.data()};
        a.indices = at.data();
        a.mean = 0.2860f;
        a.inv_std = 2.83f;
        a.x = x.data();
        a.y = y.data();
        backend.gather_batch(a);
        (&backend == cpu.get() ? want_labels : got_labels) = y.read();
        return x.read();
      });
      EXPECT_EQ(got_labels, want_labels);
    }
  }
}

TEST_F(Matrix, GatherDividesAsIeeeDoes) {
  constexpr std::size_t features = 256;
  std::vector<std::uint8_t> pixels(features);
  for (std::size_t i = 0; i < features; ++i) pixels[i] = static_cast<std::uint8_t>(i);
  const Array<std::uint8_t> p(simt, pixels);
  const Array<std::uint16_t> l(simt, std::vector<std::uint16_t>{0});
  const Array<std::int32_t> at(simt, std::vector<std::int32_t>{0}), y(simt, 1);
  const Array<float> x(simt, features);
  GatherBatch a{.batch = 1, .features = features, .images = p.data(), .labels = l.data()};
  a.indices = at.data();
  a.mean = 0.0f;
  a.inv_std = 1.0f;
  a.x = x.data();
  a.y = y.data();
  simt.gather_batch(a);
  const std::vector<float> got = x.read();
  for (std::size_t i = 0; i < features; ++i) EXPECT_EQ(got[i], static_cast<float>(i) / 255.0f) << i;
}

}  // namespace
}  // namespace gradflow::kernels::cuda
