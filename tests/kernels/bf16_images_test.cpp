// Batch norm, pooling and the shortcut in bf16 against the same operations on widened f32 numbers, rounded
// once; and fused batch norm against separate launches, which round at the same places.
#include "bf16_numbers.h"
#include "support.h"

namespace gradflow::kernels::test {
namespace {

class Bf16Images : public BackendTest {
 public:
  // The same bits on the host. A GPU contracts multiply-adds: an f32 difference of a few roundings of numbers
  // of size 10, which may fall on the other side of a bf16 rounding.
  ::testing::AssertionResult agree(const Narrow& got, const Narrow& want) {
    return device().is_host() ? all_same(widened(got), widened(want)) : near(got, widened(want));
  }
  // Statistics of bf16 numbers are summed in another order than those of f32 ones: the same differences.
  ::testing::AssertionResult near(const Narrow& got, const Wide& want) {
    const std::vector<double> wide(want.begin(), want.end());
    return all_near(widened(got), wide,
                    [&](std::size_t i) { return 0x1p-7 * std::fabs(wide[i]) + 100 * epsilon<float>(); });
  }
  // Sums of `rows` terms of size 3 or what follows from them: f32 over 16 of them errs by 16 roundings of its
  // terms.
  ::testing::AssertionResult near(const Wide& got, const Wide& want, std::size_t rows) {
    const std::vector<double> wide(want.begin(), want.end());
    const double sum = 3 * 16 * std::sqrt(static_cast<double>(rows));
    return all_near(got, wide,
                    [&](std::size_t i) { return epsilon<float>() * (sum + 10 * std::fabs(wide[i])); });
  }
  Narrow normals(std::size_t n, double scale = 1) { return rounded(random_.normals<float>(n, scale)); }
  Wide wide_normals(std::size_t n) { return random_.normals<float>(n); }

 private:
  Random random_{181};
};

struct Matrix {
  std::size_t rows, channels;
};
constexpr Matrix kMatrices[] = {{1, 1}, {3, 31}, {40, 300}, {2051, 16}, {1031, 17}, {131, 64}};

TEST_P(Bf16Images, BatchNorm) {
  for (const Matrix s : kMatrices)
    for (const std::size_t offset : {0u, 1u}) {
      SCOPED_TRACE(fmt::format("{}x{} offset {}", s.rows, s.channels, offset));
      const std::size_t n = s.rows * s.channels;
      const Narrow x = normals(n, 3), dy = normals(n), old = normals(n);
      const Wide scale = wide_normals(s.channels), shift = wide_normals(s.channels);
      DeviceArray<float> wx(device(), widened(x)), wy(device(), n), wdy(device(), widened(dy)),
          wdx(device(), widened(old));
      DeviceArray<Bf16> nx(device(), x, offset), ny(device(), n, Bf16{7}, offset), ndy(device(), dy, offset),
          ndx(device(), old, offset);
      DeviceArray<float> dscale(device(), scale), dshift(device(), shift);
      // Per channel, f32 for both: mean, inverse deviation, running mean and variance, dscale, dshift.
      std::vector<Wide> channels[2];
      for (const bool narrow : {false, true}) {
        DeviceArray<float> mean(device(), s.channels), inv_std(device(), s.channels),
            running(device(), s.channels), variance(device(), s.channels), dw(device(), shift),
            db(device(), scale);
        const DType type = narrow ? DType::bf16 : DType::f32;
        BatchNormForward f{.dtype = type, .rows = s.rows, .channels = s.channels};
        f.x = narrow ? static_cast<void*>(nx.data()) : wx.data();
        f.y = narrow ? static_cast<void*>(ny.data()) : wy.data();
        f.scale = dscale.data(), f.shift = dshift.data(), f.mean = mean.data(), f.inv_std = inv_std.data();
        f.running_mean = running.data(), f.running_variance = variance.data();
        device().batch_norm_forward(f);
        BatchNormBackward b{.dtype = type, .rows = s.rows, .channels = s.channels, .x = f.x};
        b.dy = narrow ? static_cast<void*>(ndy.data()) : wdy.data();
        b.dx = narrow ? static_cast<void*>(ndx.data()) : wdx.data();
        b.dx_mode = offset ? GradMode::accumulate : GradMode::overwrite;
        b.scale = f.scale, b.mean = f.mean, b.inv_std = f.inv_std;
        b.dscale = dw.data(), b.dshift = db.data(), b.parameter_mode = GradMode::accumulate;
        device().batch_norm_backward(b);
        for (const auto* part : {&mean, &inv_std, &running, &variance, &dw, &db})
          channels[narrow].push_back(part->get());
      }
      EXPECT_TRUE(near(ny.get(), wy.get())) << "y";
      EXPECT_TRUE(near(ndx.get(), wdx.get())) << "dx";
      for (std::size_t i = 0; i < channels[0].size(); ++i)
        EXPECT_TRUE(near(channels[1][i], channels[0][i], s.rows)) << "channel numbers " << i;

      DeviceArray<float> mean(device(), scale), variance(device(), s.channels, 2.0f);
      BatchNormForward e{
          .dtype = DType::f32, .rows = s.rows, .channels = s.channels, .x = wx.data(), .y = wy.data()};
      e.running_mean = mean.data(), e.running_variance = variance.data(), e.training = false;
      device().batch_norm_forward(e);
      e.dtype = DType::bf16, e.x = nx.data(), e.y = nx.data();  // over x
      device().batch_norm_forward(e);
      EXPECT_TRUE(near(nx.get(), wy.get())) << "evaluation";
    }
}

TEST_P(Bf16Images, FusedBatchNormIsTheSameAsSeparateLaunches) {
  constexpr DType type = DType::bf16;
  constexpr double kScale = 0.7;
  for (const Matrix s : {Matrix{1031, 17}, Matrix{131, 64}})
    for (const PointwiseId op : {PointwiseId::identity, PointwiseId::relu, PointwiseId::tanh})
      for (const bool with_skip : {false, true})
        for (const bool accumulate : {false, true}) {
          SCOPED_TRACE(fmt::format("{}x{} {} skip {} accumulate {}", s.rows, s.channels, info_of(op).name,
                                   with_skip, accumulate));
          const std::size_t n = s.rows * s.channels;
          const GradMode mode = accumulate ? GradMode::accumulate : GradMode::overwrite;
          const Narrow skip = normals(n), dy = normals(n), old = normals(n);
          DeviceArray<Bf16> x(device(), normals(n, 3)), pskip(device(), skip), fused(device(), n),
              y(device(), n);
          DeviceArray<float> scale(device(), wide_normals(s.channels)),
              shift(device(), wide_normals(s.channels)), mean(device(), s.channels),
              inv_std(device(), s.channels);
          DeviceArray<Gates> gates(device(), std::vector<Gates>{{0.75f, -1.25f, 1.5f, 0.375f}});
          BatchNormForward f{.dtype = type, .rows = s.rows, .channels = s.channels, .x = x.data()};
          f.scale = scale.data(), f.shift = shift.data(), f.mean = mean.data(), f.inv_std = inv_std.data();
          f.y = y.data();
          device().batch_norm_forward(f);
          if (with_skip)
            device().residual_forward({type, n, pskip.data(), y.data(), y.data(), gates.data(), kScale});
          device().pointwise_forward({.op = op, .dtype = type, .n = n, .x = y.data(), .y = y.data()});
          f.y = fused.data(), f.op = op, f.skip = with_skip ? pskip.data() : nullptr;
          f.gates = gates.data(), f.branch_scale = kScale;
          device().batch_norm_forward(f);
          EXPECT_TRUE(agree(fused.get(), y.get())) << "y";

          // Backward from the same y, so that no ReLU has another opinion.
          DeviceArray<Bf16> pdy(device(), dy), dx(device(), old), dskip(device(), old), d(device(), dy),
              branch(device(), n), want_dx(device(), old), want_dskip(device(), old);
          DeviceArray<float> dscale(device(), s.channels), dshift(device(), s.channels),
              want_dscale(device(), s.channels), want_dshift(device(), s.channels);
          BatchNormBackward b{
              .dtype = type, .rows = s.rows, .channels = s.channels, .x = x.data(), .dy = pdy.data()};
          b.scale = scale.data(), b.mean = mean.data(), b.inv_std = inv_std.data(), b.dx = dx.data();
          b.dx_mode = mode, b.dscale = dscale.data(), b.dshift = dshift.data();
          b.op = op, b.y = y.data(), b.has_skip = with_skip, b.dskip = dskip.data(), b.skip_mode = mode;
          b.gates = gates.data(), b.branch_scale = kScale;
          device().batch_norm_backward(b);
          device().pointwise_backward(
              {.op = op, .dtype = type, .n = n, .saved = y.data(), .dy = d.data(), .dx = d.data()});
          if (with_skip)
            device().residual_backward({type, n, d.data(), want_dskip.data(), mode, branch.data(),
                                        GradMode::overwrite, gates.data(), kScale});
          BatchNormBackward alone{.dtype = type, .rows = s.rows, .channels = s.channels, .x = x.data()};
          alone.dy = with_skip ? branch.data() : d.data();
          alone.scale = scale.data(), alone.mean = mean.data(), alone.inv_std = inv_std.data();
          alone.dx = want_dx.data(), alone.dx_mode = mode;
          alone.dscale = want_dscale.data(), alone.dshift = want_dshift.data();
          device().batch_norm_backward(alone);
          EXPECT_TRUE(agree(dx.get(), want_dx.get())) << "dx";
          if (with_skip) {
            EXPECT_TRUE(agree(dskip.get(), want_dskip.get())) << "dskip";
          }
          if (device().is_host()) {
            EXPECT_TRUE(all_same(dscale.get(), want_dscale.get()));
            EXPECT_TRUE(all_same(dshift.get(), want_dshift.get()));
          }
        }
}

constexpr GradMode kAllModes[] = {GradMode::none, GradMode::overwrite, GradMode::accumulate};

TEST_P(Bf16Images, Pooling) {
  for (const PoolWindow& w :
       {PoolWindow{2, 6, 8, 5, 2, 2, 2, 2, 0, 0}, PoolWindow{3, 9, 7, 16, 3, 3, 2, 2, 1, 1},
        PoolWindow{3, 4, 4, 70, 4, 4, 1, 1, 0, 0}, PoolWindow{4, 17, 18, 33, 3, 3, 1, 1, 1, 1},
        PoolWindow{0, 4, 4, 3, 2, 2, 2, 2, 0, 0}}) {
    SCOPED_TRACE(fmt::format("{}x{}x{}x{} window {}", w.batch, w.height, w.width, w.channels, w.kernel_h));
    const std::size_t in = std::size_t(w.batch * w.height * w.width * w.channels),
                      out = std::size_t(w.batch * w.out_height() * w.out_width() * w.channels);
    Narrow x = normals(in);
    for (std::size_t i = 0; i < in; ++i) {
      if (i % 3 == 0) x[i] = to_bf16(std::round(to_float(x[i])));  // ties, zeros of both signs
      if (i % 23 == 5) x[i] = to_bf16(NAN);
    }
    const Narrow dy = normals(out), old = normals(in);
    const std::size_t offset = w.channels % 8 == 0 ? 0 : 1;  // aligned where channels are whole packs of 16 bytes
    DeviceArray<float> wx(device(), widened(x)), wy(device(), out), wdy(device(), widened(dy));
    DeviceArray<Bf16> nx(device(), x, offset), ny(device(), out, Bf16{7}, offset), ndy(device(), dy, offset);
    DeviceArray<std::int32_t> winners(device(), out), want_winners(device(), out);
    device().max_pool_forward({DType::f32, w, wx.data(), wy.data(), want_winners.data()});
    device().max_pool_forward({DType::bf16, w, nx.data(), ny.data(), winners.data()});
    EXPECT_TRUE(all_same(widened(ny.get()), wy.get()));
    EXPECT_EQ(winners.get(), want_winners.get());
    device().average_pool_forward({DType::f32, w, wx.data(), wy.data()});
    device().average_pool_forward({DType::bf16, w, nx.data(), ny.data()});
    EXPECT_TRUE(all_same(widened(ny.get()), widened(rounded(wy.get()))));
    for (const GradMode mode : kAllModes)
      for (const bool max : {true, false}) {
        DeviceArray<float> wdx(device(), widened(old));
        DeviceArray<Bf16> ndx(device(), old, offset);
        if (max) {
          device().max_pool_backward({DType::f32, w, winners.data(), wdy.data(), wdx.data(), mode});
          device().max_pool_backward({DType::bf16, w, winners.data(), ndy.data(), ndx.data(), mode});
        } else {
          device().average_pool_backward({DType::f32, w, wdy.data(), wdx.data(), mode});
          device().average_pool_backward({DType::bf16, w, ndy.data(), ndx.data(), mode});
        }
        EXPECT_TRUE(all_same(widened(ndx.get()), widened(rounded(wdx.get()))))
            << "max " << max << " mode " << int(mode);
      }
  }
}

TEST_P(Bf16Images, Shortcut) {
  for (const ShortcutShape& s :
       {ShortcutShape{2, 6, 8, 4, 8, 2}, {3, 5, 7, 3, 5, 2}, {1, 4, 4, 6, 6, 1}, {5, 16, 15, 16, 32, 2}}) {
    SCOPED_TRACE(fmt::format("{}x{}x{} to {}", s.height, s.width, s.channels, s.outputs));
    const std::size_t in = std::size_t(s.batch * s.height * s.width * s.channels),
                      out = std::size_t(s.batch * s.out_height() * s.out_width() * s.outputs);
    const Narrow x = normals(in), dy = normals(out), old = normals(in);
    const std::size_t offset = s.channels % 8 == 0 ? 0 : 1;
    DeviceArray<float> wx(device(), widened(x)), wy(device(), out), wdy(device(), widened(dy));
    DeviceArray<Bf16> nx(device(), x, offset), ny(device(), out, Bf16{7}), ndy(device(), dy, offset);
    device().shortcut_forward({DType::f32, s, wx.data(), wy.data()});
    device().shortcut_forward({DType::bf16, s, nx.data(), ny.data()});
    EXPECT_TRUE(all_same(widened(ny.get()), wy.get()));
    for (const GradMode mode : kAllModes) {
      DeviceArray<float> wdx(device(), widened(old));
      DeviceArray<Bf16> ndx(device(), old, offset);
      device().shortcut_backward({DType::f32, s, wdy.data(), wdx.data(), mode});
      device().shortcut_backward({DType::bf16, s, ndy.data(), ndx.data(), mode});
      EXPECT_TRUE(all_same(widened(ndx.get()), widened(rounded(wdx.get()))));
    }
  }
}

GRADFLOW_TEST_ON_BACKENDS(Bf16Images);

}  // namespace
}  // namespace gradflow::kernels::test
