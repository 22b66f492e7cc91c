// One learned number for a whole tensor, forward and backward.
#include "gradflow/kernels/bf16.h"
#include "support.h"

namespace gradflow::kernels::test {
namespace {

class ScalarLayer : public BackendTest {};

TEST_P(ScalarLayer, Forward) {
  Random random(31);
  for_each_real([&]<class T>() {
    for (const std::size_t n : kSizes)
      for (const std::size_t offset : kOffsets)
        for (const int which : {1, 2, 3}) {  // bit 0: a scale, bit 1: a shift
          SCOPED_TRACE(fmt::format("n={} offset={} which={}", n, offset, which));
          const std::vector<T> data = random.normals<T>(n);
          DeviceArray<T> x(device(), data, offset), a(device(), 1, T(-1.25)), b(device(), 1, T(0.3));
          device().scalar_forward({dtype_of<T>(), n, x.data(), x.data(), which & 1 ? a.data() : nullptr,
                                   which & 2 ? b.data() : nullptr});
          std::vector<double> want(n);
          for (std::size_t i = 0; i < n; ++i)
            want[i] = (which & 1 ? -1.25 : 1.0) * double(data[i]) + (which & 2 ? double(T(0.3)) : 0.0);
          EXPECT_TRUE(all_near(x.get(), want, [&](std::size_t i) {
            return 2 * epsilon<T>() * (1.25 * std::fabs(double(data[i])) + 0.3);  // two roundings
          }));
        }
  });
}

// A scale of 1 alone and a shift of -0 change no bit, the sign of zero included.
TEST_P(ScalarLayer, OneIsTheIdentity) {
  std::vector<float> data = {-0.0f, 0.0f, 1e-42f, -3.5f, INFINITY};
  DeviceArray<float> x(device(), data), y(device(), data.size()), one(device(), 1, 1.0f);
  device().scalar_forward({DType::f32, data.size(), x.data(), y.data(), one.data()});
  EXPECT_TRUE(all_same(y.get(), data));
}

TEST_P(ScalarLayer, Backward) {
  Random random(32);
  constexpr GradMode kModes[] = {GradMode::none, GradMode::overwrite, GradMode::accumulate};
  for_each_real([&]<class T>() {
    for (const std::size_t n : kSizes)
      for (const GradMode mode : kModes)
        for (const GradMode parameter_mode : {GradMode::overwrite, GradMode::accumulate})
          for (const bool alias : {false, true}) {
            if (alias && mode != GradMode::overwrite) continue;
            SCOPED_TRACE(fmt::format("n={} mode={} parameters={} alias={}", n, int(mode), int(parameter_mode), alias));
            const std::vector<T> x = random.normals<T>(n), dy = random.normals<T>(n), old = random.normals<T>(n);
            DeviceArray<T> xs(device(), x), dys(device(), dy), dx(device(), old), a(device(), 1, T(-0.5));
            DeviceArray<T> dscale(device(), 1, T(2)), dshift(device(), 1, T(3));
            device().scalar_backward({dtype_of<T>(), n, xs.data(), dys.data(), alias ? dys.data() : dx.data(), mode,
                                      a.data(), dscale.data(), dshift.data(), parameter_mode});
            const bool add = parameter_mode == GradMode::accumulate;
            double product = n == 0 || add ? 2 : 0, sum = n == 0 || add ? 3 : 0, size_product = 0, size_sum = 0;
            std::vector<double> want(n);
            for (std::size_t i = 0; i < n; ++i) {
              product += double(x[i]) * double(dy[i]);
              sum += double(dy[i]);
              size_product += std::fabs(double(x[i]) * double(dy[i]));
              size_sum += std::fabs(double(dy[i]));
              want[i] = mode == GradMode::none ? double(old[i])
                                               : -0.5 * double(dy[i]) + (mode == GradMode::accumulate ? double(old[i]) : 0.0);
            }
            EXPECT_TRUE(all_near((alias ? dys : dx).get(), want, [&](std::size_t i) {
              return epsilon<T>() * (std::fabs(double(dy[i])) + std::fabs(double(old[i])));
            }));
            // Sums of n terms in f64, in another order than here, and one rounding to T.
            const auto near = [&](double got, double expected, double size) {
              return std::fabs(got - expected) <= double(n) * 1.2e-16 * size + epsilon<T>() * std::fabs(expected);
            };
            EXPECT_TRUE(near(double(dscale.front()), product, size_product)) << dscale.front() << " " << product;
            EXPECT_TRUE(near(double(dshift.front()), sum, size_sum)) << dshift.front() << " " << sum;
          }
  });
}

// What is not wanted is not touched, and x is then not read.
TEST_P(ScalarLayer, LeavesOutWhatIsNotWanted) {
  DeviceArray<float> dy(device(), std::vector<float>{1, 2, 4}), dx(device(), 3), dshift(device(), 1);
  device().scalar_backward({.n = 3, .dy = dy.data(), .dx = dx.data(), .dshift = dshift.data()});
  EXPECT_EQ(dshift.front(), 7.0f);
  EXPECT_EQ(dx.get(), (std::vector<float>{1, 2, 4}));
}

// bf16 is the f32 computation on the widened numbers, rounded once; parameters stay f32.
TEST_P(ScalarLayer, InBf16) {
  Random random(33);
  const std::size_t n = 3001;
  std::vector<Bf16> x(n), dy(n);
  std::vector<float> wide_x(n), wide_dy(n);
  for (std::size_t i = 0; i < n; ++i) {
    x[i] = to_bf16(random.normals<float>(1)[0]);
    dy[i] = to_bf16(random.normals<float>(1)[0]);
    wide_x[i] = to_float(x[i]);
    wide_dy[i] = to_float(dy[i]);
  }
  DeviceArray<float> a(device(), 1, 0.7f), b(device(), 1, -0.2f), da(device(), 1), db(device(), 1), wa(device(), 1),
      wb(device(), 1);
  DeviceArray<Bf16> nx(device(), x), ny(device(), n), ndy(device(), dy);
  DeviceArray<float> fx(device(), wide_x), fy(device(), n), fdy(device(), wide_dy);
  device().scalar_forward({DType::bf16, n, nx.data(), ny.data(), a.data(), b.data()});
  device().scalar_forward({DType::f32, n, fx.data(), fy.data(), a.data(), b.data()});
  device().scalar_backward({DType::bf16, n, nx.data(), ndy.data(), ndy.data(), GradMode::overwrite, a.data(), da.data(), db.data()});
  device().scalar_backward({DType::f32, n, fx.data(), fdy.data(), fdy.data(), GradMode::overwrite, a.data(), wa.data(), wb.data()});
  const auto rounded = [](std::vector<float> values) {
    std::vector<Bf16> stored(values.size());
    for (std::size_t i = 0; i < values.size(); ++i) stored[i] = to_bf16(values[i]);
    return stored;
  };
  EXPECT_EQ(ny.get(), rounded(fy.get()));
  EXPECT_EQ(ndy.get(), rounded(fdy.get()));
  // The same terms; packs of 8 and of 4 deal them out to threads differently: f64 sums of 3001 terms.
  EXPECT_NEAR(da.front(), wa.front(), 1e-6 * std::fabs(wa.front()) + 1e-12);
  EXPECT_NEAR(db.front(), wb.front(), 1e-6 * std::fabs(wb.front()) + 1e-12);
}

GRADFLOW_TEST_ON_BACKENDS(ScalarLayer);

}  // namespace
}  // namespace gradflow::kernels::test
