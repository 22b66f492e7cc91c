// The residual addition with its gates, forward and backward.
#include "support.h"

namespace gradflow::kernels::test {
namespace {

class Residual : public BackendTest {};

TEST_P(Residual, ForwardIsTheGatedSum) {
  Random random(21);
  const Gates settings[] = {{}, {1, 0, 1, 1}, {0, 1, 1, 1}, {0.5f, -2, 1, 1}};
  for_each_real([&]<class T>() {
    for (const Gates& gates : settings)
      for (const std::size_t n : kSizes)
        for (const std::size_t offset : kOffsets)
          for (const int alias : {0, 1, 2}) {  // none, y = skip, y = branch
            SCOPED_TRACE(fmt::format("n={} offset={} alias={}", n, offset, alias));
            const std::vector<T> skip = random.normals<T>(n), branch = random.normals<T>(n);
            DeviceArray<T> s(device(), skip, offset), b(device(), branch, offset),
                y(device(), n, T(NAN), offset);
            DeviceArray<Gates> g(device(), {gates});
            DeviceArray<Stats> stats(device(), 1);
            DeviceArray<T>& to = alias == 0 ? y : alias == 1 ? s : b;
            device().residual_forward(
                {dtype_of<T>(), n, s.data(), b.data(), to.data(), g.data(), 0.75, stats.data()});
            device().synchronize();
            std::vector<double> want(n);
            const double on_skip = gates.forward_skip, on_branch = gates.forward_branch * 0.75;
            for (std::size_t i = 0; i < n; ++i)
              want[i] = on_skip * double(skip[i]) + on_branch * double(branch[i]);
            const std::vector<T> got = to.get();
            EXPECT_TRUE(all_near(got, want, [&](std::size_t i) {
              return epsilon<T>() *
                     (std::fabs(on_skip * double(skip[i])) + std::fabs(on_branch * double(branch[i])));
            }));
            expect_stats(stats.front(), naive_stats(got), sum_of_magnitudes(got));
          }
  });
}

// What the engine relies on: a branch of zeros passes the skip path on unchanged, bit for bit.
TEST_P(Residual, AZeroBranchIsTheIdentity) {
  Random random(22);
  const std::size_t n = 5000;
  std::vector<float> skip = random.normals<float>(n);
  skip[17] = 1e-42f;
  DeviceArray<float> s(device(), skip), b(device(), n), y(device(), n);
  DeviceArray<Gates> g(device(), {Gates{}});
  device().residual_forward({DType::f32, n, s.data(), b.data(), y.data(), g.data(), 1.0, nullptr});
  EXPECT_TRUE(all_same(y.get(), skip));
}

TEST_P(Residual, OfNothingReadsNothing) {
  device().residual_forward({DType::f32, 0});
  device().residual_backward({DType::f32, 0, nullptr, nullptr, GradMode::overwrite, nullptr, GradMode::overwrite});
  device().synchronize();
}

TEST_P(Residual, BackwardSplitsTheGradient) {
  Random random(23);
  const Gates gates{9, 9, 0.5f, -3};
  for_each_real([&]<class T>() {
    for (const std::size_t n : kSizes)
      for (const GradMode skip_mode : kModes)
        for (const GradMode branch_mode : kModes)
          for (const int alias : {0, 1, 2}) {  // none, dskip = dy, dbranch = dy
            if (alias == 1 && skip_mode != GradMode::overwrite) continue;
            if (alias == 2 && branch_mode != GradMode::overwrite) continue;
            SCOPED_TRACE(fmt::format("n={} skip mode {} branch mode {} alias {}", n, int(skip_mode),
                                     int(branch_mode), alias));
            const std::vector<T> dy = random.normals<T>(n), old = random.normals<T>(n);
            DeviceArray<T> d(device(), dy, 1);
            DeviceArray<T> ds(device(), skip_mode == GradMode::overwrite ? std::vector<T>(n, T(NAN)) : old,
                              1);
            DeviceArray<T> db(device(), branch_mode == GradMode::overwrite ? std::vector<T>(n, T(NAN)) : old);
            DeviceArray<Gates> g(device(), {gates});
            DeviceArray<Stats> stats(device(), 1);
            DeviceArray<T>& skip = alias == 1 ? d : ds;
            DeviceArray<T>& branch = alias == 2 ? d : db;
            device().residual_backward({dtype_of<T>(), n, d.data(), skip.data(), skip_mode, branch.data(),
                                        branch_mode, g.data(), 2.0, stats.data()});
            device().synchronize();
            const auto check = [&](const std::vector<T>& got, GradMode mode, double factor) {
              std::vector<double> want(n);
              for (std::size_t i = 0; i < n; ++i)
                want[i] = mode == GradMode::none         ? double(old[i])
                          : mode == GradMode::accumulate ? double(old[i]) + factor * double(dy[i])
                                                         : factor * double(dy[i]);
              EXPECT_TRUE(all_near(got, want, [&](std::size_t i) {
                return epsilon<T>() * (std::fabs(double(old[i])) + std::fabs(factor * double(dy[i])));
              }));
            };
            check(skip.get(), skip_mode, 0.5);
            check(branch.get(), branch_mode, -6.0);
            expect_stats(stats.front(), naive_stats(dy), sum_of_magnitudes(dy));
          }
  });
}

GRADFLOW_TEST_ON_BACKENDS(Residual);

}  // namespace
}  // namespace gradflow::kernels::test
