// Pointwise and residual kernels, statistics alone and fused, against the host backend.
#include "simt/harness.h"

namespace gradflow::kernels::cuda {
namespace {

// exp and tanh of two libraries: a few units in the last place each, and two more roundings.
constexpr double kFunctionTolerance = 8 * 1.2e-7;

struct Outcome {
  std::vector<float> first, second;
  Stats one, two;
};

class Elementwise : public KernelTest {
 protected:
  // Runs `f` on the emulated device under several schedules; every bit must be the same. Then on the host.
  template <class F>
  void compare(double tolerance, const F& f, double scale = kSmallestNormal) {
    Outcome first;
    for (const std::uint64_t schedule : schedules()) {
      ::simt::set_seed(schedule);
      const Outcome got = f(simt);
      if (schedule == schedules().front()) {
        first = got;
      } else {
        EXPECT_TRUE(same_bits(got.first, first.first) && same_bits(got.second, first.second)) << schedule;
        EXPECT_EQ(std::memcmp(&got.one, &first.one, sizeof(Stats)), 0) << "schedule " << schedule;
        EXPECT_EQ(std::memcmp(&got.two, &first.two, sizeof(Stats)), 0) << "schedule " << schedule;
      }
    }
    const Outcome want = f(*cpu);
    expect_close(first.first, want.first, tolerance, scale);
    expect_close(first.second, want.second, tolerance, scale);
    expect_close(first.one, want.one);
    expect_close(first.two, want.two);
  }
};

TEST_F(Elementwise, PointwiseForward) {
  ops::All::for_each([&]<class Op>() {
    for (const std::size_t n : sizes()) {
      for (const std::size_t offset : {0u, 1u}) {
        SIMT_CASE(Op::name << " n=" << n << " offset=" << offset);
        const std::vector<float> x = numbers(n, 1, true);
        std::vector<float> plain;
        {
          const Array<float> in(simt, x, offset), out(simt, n, offset);
          simt.pointwise_forward({.op = Op::id, .n = n, .x = in.data(), .y = out.data()});
          plain = out.read();
        }
        // Saturation is judged on outputs that may differ in the last bit, so it is checked on its own below.
        const auto run = [&](Backend& backend) {
          Outcome o;
          const Array<float> in(backend, x, offset);  // in place
          backend.pointwise_forward(
              {.op = Op::id, .n = n, .x = in.data(), .y = in.data(), .x_stats = &o.one});
          o.first = in.read();
          return o;
        };
        compare(kFunctionTolerance, run);
        EXPECT_TRUE(same_bits(run(simt).first, plain)) << "statistics or aliasing changed a bit";
        Stats y_stats, want;
        const Array<float> in(simt, x, offset), out(simt, n);
        simt.pointwise_forward({.op = Op::id, .n = n, .x = in.data(), .y = out.data(), .y_stats = &y_stats});
        cpu->stats({.n = n, .x = out.data(), .op = Op::id, .out = &want});
        expect_close(y_stats, want);
      }
    }
  });
}

TEST_F(Elementwise, PointwiseBackward) {
  ops::All::for_each([&]<class Op>() {
    for (const std::size_t n : sizes()) {
      for (const GradMode mode : {GradMode::overwrite, GradMode::accumulate}) {
        for (const int kind : {0, 1, 2}) {  // plain, with statistics, with statistics and in place
          const bool stats = kind != 0, in_place = kind == 2;
          if (in_place && mode == GradMode::accumulate) continue;
          SIMT_CASE(Op::name << " n=" << n << " mode=" << static_cast<int>(mode) << " kind=" << kind);
          std::vector<float> saved = numbers(n, 2, true);
          if (Op::saves == Saves::y)
            cpu->pointwise_forward({.op = Op::id, .n = n, .x = saved.data(), .y = saved.data()});
          const std::vector<float> gradient = numbers(n, 3, true);
          compare(
              kFunctionTolerance,
              [&](Backend& backend) {
                Outcome o;
                const Array<float> y(backend, saved), dy(backend, gradient, n % 3),
                    old(backend, numbers(n, 4));
                float* dx = in_place ? dy.data() : old.data();
                PointwiseBackward a{.op = Op::id, .n = n, .saved = y.data(), .dy = dy.data(), .dx = dx};
                a.mode = mode;
                a.dy_stats = stats ? &o.one : nullptr;
                backend.pointwise_backward(a);
                o.first = (in_place ? dy : old).read();
                return o;
              },
              1.0);
        }
      }
    }
  });
}

TEST_F(Elementwise, BackwardStatisticsAreOfWhatWasStored) {
  const std::vector<float> y = numbers(5001, 2, true);
  for (const GradMode mode : {GradMode::overwrite, GradMode::accumulate}) {
    const Array<float> saved(simt, y), dy(simt, numbers(y.size(), 3)), dx(simt, numbers(y.size(), 4));
    Stats got, want;
    PointwiseBackward a{.op = PointwiseId::tanh, .n = y.size(), .saved = saved.data(), .dy = dy.data()};
    a.dx = dx.data();
    a.mode = mode;
    a.dx_stats = &got;
    simt.pointwise_backward(a);
    cpu->stats({.n = y.size(), .x = dx.data(), .out = &want});
    expect_close(got, want);
  }
}

TEST_F(Elementwise, BackwardOfNobodyStillMeasures) {
  const Array<float> dy(simt, numbers(100, 3));
  Stats got, want;
  simt.pointwise_backward({.n = 100, .dy = dy.data(), .mode = GradMode::none, .dy_stats = &got});
  cpu->stats({.n = 100, .x = dy.data(), .out = &want});
  expect_close(got, want);
}

TEST_F(Elementwise, ResidualForward) {
  for (const std::size_t n : sizes()) {
    for (const std::size_t offset : {0u, 1u}) {
      for (const int alias : {0, 1, 2}) {
        SIMT_CASE("n=" << n << " offset=" << offset << " alias=" << alias);
        const auto run = [&](Backend& backend) {
          Outcome o;
          const Array<Gates> gates(backend, std::vector<Gates>{{0.5f, 0.75f, 1, 1}});
          const Array<float> skip(backend, numbers(n, 5, true), offset), branch(backend, numbers(n, 6, true));
          const Array<float> out(backend, n);
          const Array<float>& y = alias == 0 ? out : alias == 1 ? skip : branch;
          ResidualForward a{.n = n, .skip = skip.data(), .branch = branch.data(), .y = y.data()};
          a.gates = gates.data();
          a.scale = 0.3;
          a.y_stats = alias == 0 ? nullptr : &o.one;
          backend.residual_forward(a);
          o.first = y.read();
          return o;
        };
        // Two products and a sum: three roundings of numbers of the inputs' size. Statistics of outputs that
        // differ in the last bit are compared by their counts only, below.
        const Outcome got = run(simt), want = run(*cpu);
        expect_close(got.first, want.first, 4 * 6e-8, 8.0);
        EXPECT_EQ(got.one.count, want.one.count);
        EXPECT_EQ(got.one.nonfinite, want.one.nonfinite);
      }
    }
  }
}

TEST_F(Elementwise, ResidualWithoutBranchPassesEveryBit) {
  const std::vector<float> x = numbers(1025, 5, false);
  const Array<Gates> gates(simt, std::vector<Gates>{{1, 0, 1, 0}});
  const Array<float> skip(simt, x), branch(simt, numbers(1025, 6)), y(simt, 1025), dskip(simt, 1025);
  simt.residual_forward(
      {.n = 1025, .skip = skip.data(), .branch = branch.data(), .y = y.data(), .gates = gates.data()});
  EXPECT_TRUE(same_bits(y.read(), x));
  ResidualBackward a{.n = 1025, .dy = y.data(), .dskip = dskip.data()};
  a.branch_mode = GradMode::none;
  a.gates = gates.data();
  simt.residual_backward(a);
  EXPECT_TRUE(same_bits(dskip.read(), x));
}

TEST_F(Elementwise, ResidualBackward) {
  constexpr GradMode kModes[] = {GradMode::none, GradMode::overwrite, GradMode::accumulate};
  for (const std::size_t n : sizes()) {
    for (const GradMode skip_mode : kModes) {
      for (const GradMode branch_mode : kModes) {
        for (const int alias : {0, 1, 2}) {  // none, dskip is dy, dbranch is dy
          if (alias == 1 && skip_mode != GradMode::overwrite) continue;
          if (alias == 2 && branch_mode != GradMode::overwrite) continue;
          SIMT_CASE("n=" << n << " modes " << static_cast<int>(skip_mode) << static_cast<int>(branch_mode)
                         << " alias=" << alias);
          compare(
              4 * 6e-8,
              [&](Backend& backend) {
                Outcome o;
                const Array<Gates> gates(backend, std::vector<Gates>{{1, 1, 0.5f, 0.75f}});
                const Array<float> dy(backend, numbers(n, 7, true), n % 2);
                const Array<float> s(backend, numbers(n, 8)), b(backend, numbers(n, 9));
                const Array<float>& dskip = alias == 1 ? dy : s;
                const Array<float>& dbranch = alias == 2 ? dy : b;
                ResidualBackward a{.n = n, .dy = dy.data(), .dskip = dskip.data(), .skip_mode = skip_mode};
                a.dbranch = dbranch.data();
                a.branch_mode = branch_mode;
                a.gates = gates.data();
                a.scale = 0.3;
                a.dy_stats = n % 2 ? &o.one : nullptr;
                backend.residual_backward(a);
                o.first = dskip.read();
                o.second = dbranch.read();
                return o;
              },
              8.0);
        }
      }
    }
  }
}

TEST_F(Elementwise, Statistics) {
  for (const std::size_t n : sizes()) {
    for (const std::size_t offset : {0u, 3u}) {
      SIMT_CASE("n=" << n << " offset=" << offset);
      const std::vector<float> x = numbers(n, 10, n % 2 == 1);
      ops::All::for_each([&]<class Op>() {
        compare(0, [&](Backend& backend) {
          Outcome o;
          const Array<float> in(backend, x, offset);
          backend.stats({.n = n, .x = in.data(), .op = Op::id, .out = &o.one});
          backend.stats({.n = n, .x = in.data(), .op = Op::id, .out = &o.one});  // adds
          return o;
        });
      });
      double dots[2] = {};
      std::size_t which = 0;
      compare(0, [&](Backend& backend) {
        Outcome o;
        const Array<float> a(backend, x, offset), b(backend, numbers(n, 11));
        double dot = 0;
        backend.difference_stats({.n = n, .a = a.data(), .b = b.data(), .difference = &o.one, .dot = &dot});
        dots[&backend == cpu.get()] = dot;
        ++which;
        return o;
      });
      EXPECT_EQ(which, schedules().size() + 1);
      // Sums of n terms in another order: each term enters with a relative error of n * 2^-53.
      const std::vector<float> b = numbers(n, 11);
      double size = 0;
      for (std::size_t i = 0; i < n; ++i)
        size += std::fabs(static_cast<double>(b[i]) * (static_cast<double>(x[i]) - static_cast<double>(b[i])));
      EXPECT_TRUE(std::isnan(dots[1]) ? std::isnan(dots[0])
                                      : dots[0] == dots[1] ||
                                            std::fabs(dots[0] - dots[1]) <= size * static_cast<double>(n + 1) * 2.3e-16)
          << dots[0] << ", want " << dots[1];
    }
  }
}

TEST_F(Elementwise, MaximumKeepsNanAboveInfinity) {
  const Array<float> x(simt, std::vector<float>{1.0f, -INFINITY, NAN, 2.0f});
  Stats s;
  simt.stats({.n = 4, .x = x.data(), .out = &s});
  EXPECT_TRUE(std::isnan(s.max_abs()));
  EXPECT_EQ(s.nonfinite, 2u);
}

TEST_F(Elementwise, ExponentHistogram) {
  for (const std::size_t n : sizes()) {
    for (const std::uint64_t schedule : schedules()) {
      SIMT_CASE("n=" << n << " schedule=" << schedule);
      ::simt::set_seed(schedule);
      std::vector<float> x = numbers(n, 12, true);
      for (std::size_t i = 0; i < n; i += 2) x[i] = std::ldexp(1.5f, static_cast<int>(i % 277) - 149);
      const Array<float> in(simt, x, n % 4);
      const Array<std::uint64_t> got(simt, std::vector<std::uint64_t>(kExponentBins, 5));
      const Array<std::uint64_t> want(*cpu, std::vector<std::uint64_t>(kExponentBins, 5));
      simt.exponent_histogram({.n = n, .x = in.data(), .bins = got.data()});
      cpu->exponent_histogram({.n = n, .x = in.data(), .bins = want.data()});
      EXPECT_EQ(got.read(), want.read()) << n;

      // The same in a pass that reads x and writes y; tests/kernels/exponents_test.cpp has the other passes.
      const Array<float> out(simt, n, n % 4);
      const Array<std::uint64_t> of_x(simt, std::vector<std::uint64_t>(kExponentBins, 5));
      const Array<std::uint64_t> of_y(simt, kExponentBins), want_y(*cpu, kExponentBins);
      PointwiseForward a{.op = PointwiseId::relu, .n = n, .x = in.data(), .y = out.data()};
      a.x_exponents = of_x.data(), a.y_exponents = of_y.data();
      simt.pointwise_forward(a);
      cpu->exponent_histogram({.n = n, .x = out.data(), .bins = want_y.data()});
      EXPECT_EQ(of_x.read(), want.read()) << n;
      EXPECT_EQ(of_y.read(), want_y.read()) << n;
    }
  }
}

TEST_F(Elementwise, Fill) {
  for (const std::size_t n : sizes()) {
    for (const std::size_t offset : {0u, 1u}) {
      SIMT_CASE("n=" << n << " offset=" << offset);
      const Array<float> x(simt, n, offset);
      simt.fill(DType::f32, x.data(), n, 0.1);
      EXPECT_EQ(x.read(), std::vector<float>(n, 0.1f));
    }
  }
}

TEST_F(Elementwise, OtherTypesAreRefused) {
  EXPECT_THROW(simt.fill(DType::f64, nullptr, 1, 0), UserError);
  EXPECT_THROW(simt.pointwise_forward({.dtype = DType::u8}), UserError);
}

}  // namespace
}  // namespace gradflow::kernels::cuda
