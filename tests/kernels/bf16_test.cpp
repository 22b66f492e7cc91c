// bf16: the conversion itself, and every operation on bf16 against the same operation on widened f32 numbers,
// rounded once. That is the contract (backend.h) and leaves no tolerance; f32 is tested against f64 elsewhere.
#include "gradflow/kernels/bf16.h"

#include "bf16_numbers.h"

namespace gradflow::kernels::test {
namespace {

TEST(Bf16, RoundsToNearestEven) {
  // Every bf16 is itself; halfway between two neighbors the even one wins; just above and below, the near one.
  for (std::uint32_t bits = 0; bits < 0x10000; ++bits) {
    const Bf16 x{static_cast<std::uint16_t>(bits)};
    const float wide = to_float(x);
    if (std::isnan(wide)) {
      ASSERT_TRUE(std::isnan(to_float(to_bf16(wide))));
      ASSERT_EQ(std::signbit(to_float(to_bf16(wide))), std::signbit(wide));
      continue;
    }
    ASSERT_EQ(to_bf16(wide), x);
    if (std::isinf(wide)) continue;
    const Bf16 next{static_cast<std::uint16_t>(bits + 1)};  // away from zero
    const float half = std::bit_cast<float>((bits << 16) + 0x8000u);
    ASSERT_EQ(to_bf16(half), bits % 2 == 0 ? x : next) << wide;
    ASSERT_EQ(to_bf16(std::bit_cast<float>((bits << 16) + 0x7fffu)), x);
    ASSERT_EQ(to_bf16(std::bit_cast<float>((bits << 16) + 0x8001u)), next);
  }
  EXPECT_EQ(to_bf16(1.0f).bits, 0x3f80);
  EXPECT_EQ(to_bf16(3e38f).bits, 0x7f62);
  EXPECT_EQ(to_bf16(std::numeric_limits<float>::max()).bits, 0x7f80);  // rounds up to infinity
  EXPECT_TRUE(std::isnan(to_float(to_bf16(std::bit_cast<float>(0x7f800001u)))));  // a NaN of low bits only
  EXPECT_TRUE(std::isnan(to_float(to_bf16(std::bit_cast<float>(0xffffffffu)))));
}

class Bf16Test : public BackendTest {
 public:
  Narrow numbers(Random& random, std::size_t n) { return rounded(random.wild<float>(n)); }
};

TEST_P(Bf16Test, PointwiseForward) {
  Random random(81);
  ops::All::for_each([&]<class Op>() {
    for (const std::size_t n : kSizes)
      for (const std::size_t offset : {0u, 1u, 3u}) {
        SCOPED_TRACE(fmt::format("{} n={} offset={}", Op::name, n, offset));
        const Narrow x = numbers(random, n);
        const Wide wide_x = widened(x);
        DeviceArray<float> wide(device(), wide_x), wide_y(device(), n);
        device().pointwise_forward({Op::id, DType::f32, n, wide.data(), wide_y.data()});
        const Narrow want = rounded(wide_y.get());
        DeviceArray<Bf16> in(device(), x, offset), out(device(), n, Bf16{7}, offset);
        device().pointwise_forward({Op::id, DType::bf16, n, in.data(), out.data()});
        EXPECT_TRUE(all_same(out.get(), want));
        DeviceArray<Stats> s(device(), 2);  // in place, with statistics
        device().pointwise_forward({Op::id, DType::bf16, n, in.data(), in.data(), s.data(), s.data() + 1});
        EXPECT_TRUE(all_same(in.get(), want));
        const Wide y = widened(want);
        expect_stats(s.get()[0], naive_stats(wide_x), sum_of_magnitudes(wide_x));
        expect_stats(s.get()[1], naive_stats(y, Op::id), sum_of_magnitudes(y));
      }
  });
}

TEST_P(Bf16Test, PointwiseBackward) {
  Random random(82);
  ops::All::for_each([&]<class Op>() {
    for (const std::size_t n : kSizes)
      for (const GradMode mode : {GradMode::none, GradMode::overwrite, GradMode::accumulate}) {
        SCOPED_TRACE(fmt::format("{} n={} mode={}", Op::name, n, int(mode)));
        const std::size_t offset = n % 2;
        const Narrow saved = numbers(random, n), dy = numbers(random, n), old = rounded(random.normals<float>(n));
        const Wide wide_dy = widened(dy);
        DeviceArray<float> ws(device(), widened(saved)), wdy(device(), wide_dy), wdx(device(), widened(old));
        device().pointwise_backward({Op::id, DType::f32, n, ws.data(), wdy.data(), wdx.data(), mode});
        const Narrow want = rounded(wdx.get());
        DeviceArray<Bf16> s(device(), saved, offset), d(device(), dy, offset), dx(device(), old, offset);
        device().pointwise_backward({Op::id, DType::bf16, n, s.data(), d.data(), dx.data(), mode});
        EXPECT_TRUE(all_same(dx.get(), want));
        DeviceArray<Stats> stats(device(), 2);
        DeviceArray<Bf16> again(device(), old, offset);
        Bf16* to = mode == GradMode::overwrite ? d.data() : again.data();  // in place where it may be
        device().pointwise_backward(
            {Op::id, DType::bf16, n, s.data(), d.data(), to, mode, stats.data(), stats.data() + 1});
        EXPECT_TRUE(all_same(mode == GradMode::overwrite ? d.get() : again.get(), want));
        expect_stats(stats.get()[0], naive_stats(wide_dy), sum_of_magnitudes(wide_dy));
        const Wide stored = widened(want);
        if (mode != GradMode::none)
          expect_stats(stats.get()[1], naive_stats(stored), sum_of_magnitudes(stored));
      }
  });
}

TEST_P(Bf16Test, Residual) {
  Random random(83);
  DeviceArray<Gates> gates(device(), {Gates{0.5f, -2, 0.75f, 3}});
  for (const std::size_t n : kSizes)
    for (const std::size_t offset : kOffsets) {
      SCOPED_TRACE(fmt::format("n={} offset={}", n, offset));
      const Narrow a = numbers(random, n), b = numbers(random, n);
      DeviceArray<float> wa(device(), widened(a)), wb(device(), widened(b)), wy(device(), n);
      device().residual_forward({DType::f32, n, wa.data(), wb.data(), wy.data(), gates.data(), 0.3});
      const Narrow want = rounded(wy.get());
      DeviceArray<Bf16> na(device(), a, offset), nb(device(), b), ny(device(), n, Bf16{7});
      DeviceArray<Stats> s(device(), 1);
      device().residual_forward({DType::bf16, n, na.data(), nb.data(), ny.data(), gates.data(), 0.3});
      EXPECT_TRUE(all_same(ny.get(), want));
      device().residual_forward({DType::bf16, n, na.data(), nb.data(), nb.data(), gates.data(), 0.3, s.data()});
      EXPECT_TRUE(all_same(nb.get(), want));
      expect_stats(s.front(), naive_stats(widened(want)), sum_of_magnitudes(widened(want)));
      for (const GradMode skip : kModes)
        for (const GradMode branch : kModes)
          for (const int alias : {0, 1, 2}) {
            if ((alias == 1 && skip != GradMode::overwrite) || (alias == 2 && branch != GradMode::overwrite)) continue;
            DeviceArray<float> dy(device(), widened(a)), ds(device(), widened(b)), db(device(), widened(want));
            device().residual_backward(
                {DType::f32, n, dy.data(), ds.data(), skip, db.data(), branch, gates.data(), 0.3});
            DeviceArray<Bf16> ndy(device(), a, offset), nds(device(), b), ndb(device(), want, 1);
            DeviceArray<Bf16>&to_skip = alias == 1 ? ndy : nds, &to_branch = alias == 2 ? ndy : ndb;
            device().residual_backward({DType::bf16, n, ndy.data(), to_skip.data(), skip, to_branch.data(), branch,
                                        gates.data(), 0.3, alias ? s.data() : nullptr});
            EXPECT_TRUE(all_same(to_skip.get(), rounded(ds.get())));
            EXPECT_TRUE(all_same(to_branch.get(), rounded(db.get())));
          }
    }
}

TEST_P(Bf16Test, ColumnsAndProbes) {
  Random random(84);
  for (const std::size_t rows : {0, 1, 33, 700})
    for (const std::size_t columns : {0, 1, 31, 65}) {
      SCOPED_TRACE(fmt::format("{}x{}", rows, columns));
      const std::size_t n = rows * columns;
      const Narrow x = rounded(random.normals<float>(n)), z = numbers(random, n);
      const Wide old = random.normals<float>(columns);
      DeviceArray<float> wx(device(), widened(x)), wz(device(), widened(z));
      DeviceArray<Bf16> nx(device(), x, 1), nz(device(), z);
      for (const GradMode mode : {GradMode::none, GradMode::overwrite, GradMode::accumulate}) {
        DeviceArray<float> want(device(), old), got(device(), old);
        device().column_sum({DType::f32, rows, columns, wx.data(), want.data(), mode});
        device().column_sum({DType::bf16, rows, columns, nx.data(), got.data(), mode});
        EXPECT_TRUE(test::all_same(got.get(), want.get()));
      }
      DeviceArray<std::uint8_t> alive(device(), columns), want_alive(device(), columns);
      device().mark_alive({DType::bf16, rows, columns, nz.data(), alive.data()});
      device().mark_alive({DType::f32, rows, columns, wz.data(), want_alive.data()});
      EXPECT_EQ(alive.get(), want_alive.get());
      DeviceArray<std::uint64_t> bins(device(), kExponentBins), want_bins(device(), kExponentBins);
      device().exponent_histogram({DType::bf16, n, nz.data(), bins.data()});
      device().exponent_histogram({DType::f32, n, wz.data(), want_bins.data()});
      EXPECT_EQ(bins.get(), want_bins.get());
      for (const PointwiseId op : {PointwiseId::identity, PointwiseId::tanh, PointwiseId::softplus}) {
        DeviceArray<Stats> s(device(), 1);
        device().stats({DType::bf16, n, nz.data(), op, s.data()});
        expect_stats(s.front(), naive_stats(widened(z), op), sum_of_magnitudes(widened(z)));
      }
      DeviceArray<Stats> difference(device(), 1);
      DeviceArray<double> dot(device(), 1);
      device().difference_stats({DType::bf16, n, nx.data(), nx.data(), difference.data(), dot.data()});
      EXPECT_EQ(difference.front().zeros, n);
      const Narrow y = rounded(random.normals<float>(n));
      DeviceArray<Bf16> other(device(), y);
      DeviceArray<Stats> sink(device(), 1);
      device().difference_stats({DType::bf16, n, nx.data(), other.data(), sink.data(), dot.data()});
      std::vector<double> want(n);
      double want_dot = 0, magnitude = 0;
      for (std::size_t i = 0; i < n; ++i) {
        want[i] = double(to_float(x[i])) - double(to_float(y[i]));
        want_dot += double(to_float(y[i])) * want[i];
        magnitude += std::fabs(double(to_float(y[i])) * want[i]);
      }
      expect_stats(sink.front(), naive_stats(want, PointwiseId::identity, double(std::numeric_limits<float>::min())),
                   sum_of_magnitudes(want));
      EXPECT_NEAR(dot.front(), want_dot, double(n + 2) * epsilon<double>() * magnitude);
    }
}

TEST_P(Bf16Test, SoftmaxCrossEntropy) {
  Random random(85);
  for (const std::size_t rows : {1, 3, 300})
    for (const std::size_t classes : {1, 10, 33, 1025})
      for (const bool special : {false, true}) {
        SCOPED_TRACE(fmt::format("{}x{} special {}", rows, classes, special));
        const Narrow x = special ? numbers(random, rows * classes) : rounded(random.normals<float>(rows * classes, 3));
        std::vector<std::int32_t> label(rows);
        for (auto& l : label) l = static_cast<std::int32_t>(random.below(classes));
        DeviceArray<std::int32_t> labels(device(), label);
        DeviceArray<float> wide(device(), widened(x)), want(device(), x.size());
        DeviceArray<Bf16> narrow(device(), x, 1), dx(device(), x.size());
        DeviceArray<LossResult> results(device(), 3);
        device().softmax_cross_entropy(
            {DType::f32, rows, classes, wide.data(), labels.data(), want.data(), results.data()});
        device().softmax_cross_entropy(
            {DType::bf16, rows, classes, narrow.data(), labels.data(), dx.data(), results.data() + 1});
        EXPECT_TRUE(all_same(dx.get(), rounded(want.get())));
        device().softmax_cross_entropy(
            {DType::bf16, rows, classes, narrow.data(), labels.data(), narrow.data(), results.data() + 2});
        EXPECT_TRUE(all_same(narrow.get(), dx.get()));
        const std::vector<LossResult> r = results.get();
        for (const std::size_t i : {1, 2}) {
          EXPECT_TRUE(same(r[i].loss_sum, r[0].loss_sum));
          EXPECT_EQ(r[i].rows, rows);
          EXPECT_EQ(r[i].correct, r[0].correct);
        }
      }
}

TEST_P(Bf16Test, GatherAndFill) {
  Random random(86);
  for (const std::size_t features : {1, 33, 784}) {
    const std::size_t images = 20, batch = 17;
    std::vector<std::uint8_t> pixel(images * features);
    std::vector<std::uint16_t> label(images, 3);
    for (auto& p : pixel) p = static_cast<std::uint8_t>(random.below(256));
    std::vector<std::int32_t> index(batch);
    for (auto& i : index) i = static_cast<std::int32_t>(random.below(images));
    DeviceArray<std::uint8_t> pixels(device(), pixel);
    DeviceArray<std::uint16_t> labels(device(), label);
    DeviceArray<std::int32_t> indices(device(), index), y(device(), batch);
    DeviceArray<float> wide(device(), batch * features);
    DeviceArray<Bf16> narrow(device(), batch * features, Bf16{7}, 1);
    GatherBatch a{DType::f32,     batch, features, pixels.data(), labels.data(),
                  indices.data(), 0.3f,  2.5f,     wide.data(),   y.data()};
    device().gather_batch(a);
    a.dtype = DType::bf16;
    a.x = narrow.data();
    device().gather_batch(a);
    EXPECT_TRUE(all_same(narrow.get(), rounded(wide.get())));
  }
  for (const std::size_t n : kSizes) {
    DeviceArray<Bf16> x(device(), n, Bf16{7}, n % 2);
    device().fill(DType::bf16, x.data(), n, 0.1);
    EXPECT_TRUE(all_same(x.get(), Narrow(n, to_bf16(0.1f))));
  }
}

TEST_P(Bf16Test, UpdatesKeepACopyOfTheWeights) {
  Random random(87);
  for (const OptimizerKind kind : {OptimizerKind::sgd, OptimizerKind::adamw})
    for (const std::size_t n : {1, 33, 8192, 20011})
      for (const std::size_t offset : kOffsets)
        for (const bool measured : {false, true}) {
          SCOPED_TRACE(fmt::format("kind {} n={} offset={}", int(kind), n, offset));
          const Wide start = random.normals<float>(n), gradient = random.wild<float>(n);
          DeviceArray<float> w(device(), start), dw(device(), gradient), m(device(), n), v(device(), n);
          DeviceArray<float> plain(device(), start), m2(device(), n), v2(device(), n);
          DeviceArray<Bf16> copy(device(), n, Bf16{7}, offset);
          DeviceArray<Stats> stats(device(), 1);
          DeviceArray<OptimizerScalars> s(device(), {OptimizerScalars{0.1f, 0.01f, 0.9f, 0.9f, 0.99f, 1e-8f, 0.1f, 0.01f}});
          UpdateSlice with{n, w.data(), dw.data(), m.data(), v.data()};
          with.w_bf16 = copy.data();
          if (measured) with.update_stats = stats.data();
          const UpdateSlice without{n, plain.data(), dw.data(), m2.data(), v2.data()};
          device().prepare_update({kind, DType::f32, s.data()}, {&with, 1})->run();
          device().prepare_update({kind, DType::f32, s.data()}, {&without, 1})->run();
          EXPECT_TRUE(test::all_same(w.get(), plain.get()));
          EXPECT_TRUE(all_same(copy.get(), rounded(w.get())));
        }
}

// Sums are f32 in some order: (k + 2) eps of the terms' magnitudes, and one rounding where y is bf16. The bias may
// be rounded too.
TEST_P(Bf16Test, Matmul) {
  Random random(88);
  for (const auto& [m, n, k] : {std::array<std::int64_t, 3>{1, 1, 1}, {3, 5, 7}, {17, 31, 33}, {128, 64, 256}, {5, 3, 0}})
    for (const DType y_dtype : {DType::bf16, DType::f32})
      for (int kind = 0; kind < 12; ++kind) {
        MatmulDesc desc{.dtype = DType::bf16, .m = m, .n = n, .k = k, .transpose_a = kind % 2 == 1};
        desc.transpose_b = kind / 2 % 2 == 1;
        desc.accumulate = kind / 4 == 1;
        desc.bias = kind / 4 == 2;
        desc.y_dtype = y_dtype;
        SCOPED_TRACE(fmt::format("{}x{}x{} kind {} y {}", m, n, k, kind, name_of(y_dtype)));
        const auto count = [](std::int64_t i) { return static_cast<std::size_t>(i); };
        const Narrow a = rounded(random.normals<float>(count(m * k))), b = rounded(random.normals<float>(count(k * n)));
        const Wide bias = random.normals<float>(count(n)), old = widened(rounded(random.normals<float>(count(m * n))));
        DeviceArray<Bf16> da(device(), a), db(device(), b), narrow_y(device(), rounded(old));
        DeviceArray<float> dbias(device(), bias), wide_y(device(), old);
        const auto product = device().prepare_matmul(desc);
        DeviceArray<unsigned char> workspace(device(), product->workspace_bytes());
        void* y = y_dtype == DType::bf16 ? static_cast<void*>(narrow_y.data()) : wide_y.data();
        product->run(da.data(), db.data(), desc.bias ? dbias.data() : nullptr, y, workspace.data());
        device().synchronize();
        const Wide got = y_dtype == DType::bf16 ? widened(narrow_y.get()) : wide_y.get();
        std::vector<double> want(got.size()), scale(got.size());
        for (std::int64_t i = 0; i < m * n; ++i) {
          const std::int64_t row = i / n, column = i % n;
          double sum = desc.accumulate ? double(old[count(i)]) : desc.bias ? double(bias[count(column)]) : 0.0;
          double size = std::fabs(sum);
          for (std::int64_t p = 0; p < k; ++p) {
            const double term = double(to_float(a[count(desc.transpose_a ? p * m + row : row * k + p)])) *
                                double(to_float(b[count(desc.transpose_b ? column * k + p : p * n + column)]));
            sum += term;
            size += std::fabs(term);
          }
          want[count(i)] = sum;
          scale[count(i)] = size;
        }
        const double ulp = y_dtype == DType::bf16 ? std::ldexp(1.0, -8) : 0.0;
        EXPECT_TRUE(all_near(got, want, [&](std::size_t i) {
          return static_cast<double>(k + 2) * epsilon<float>() * scale[i] + ulp * std::fabs(want[i]) +
                 (desc.bias ? ulp * std::fabs(double(bias[i % count(n)])) : 0.0);
        }));
      }
}

GRADFLOW_TEST_ON_BACKENDS(Bf16Test);

}  // namespace
}  // namespace gradflow::kernels::test
