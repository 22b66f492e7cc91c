// What batch norm's passes measure: the same bits with sinks as without, and in each sink what a launch of its own
// would have seen of the array, stored or not.
#include "stored.h"

namespace gradflow::kernels::test {
namespace {

struct MeasuredShape {
  std::size_t rows, channels;
};
// Packs of channels and single ones, several rows to a line, more channels than a line, several blocks in both directions.
constexpr MeasuredShape kMeasuredShapes[] = {{1, 1}, {31, 33}, {1031, 17}, {2051, 16}, {40, 300}, {7, 1028}};

struct Tail {
  PointwiseId op;
  bool skip;
  GradMode dx, dskip;
};
constexpr Tail kTails[] = {
    {PointwiseId::identity, false, GradMode::overwrite, GradMode::none},
    {PointwiseId::tanh, false, GradMode::accumulate, GradMode::none},
    {PointwiseId::identity, true, GradMode::none, GradMode::accumulate},
    {PointwiseId::relu, true, GradMode::overwrite, GradMode::overwrite},
    {PointwiseId::relu, true, GradMode::none, GradMode::none},
};

class BatchNormMeasured : public BackendTest {};

TEST_P(BatchNormMeasured, SeesEveryArray) {
  Random random(95);
  constexpr double kScale = 0.7;
  for_each_storage(device(), [&]<class S>() {
    using T = typename Stored<S>::Wide;
    constexpr DType dtype = Stored<S>::dtype;
    for (const auto& [rows, channels] : kMeasuredShapes)
      for (const Tail& t : kTails) {
        SCOPED_TRACE(fmt::format("{} {}x{} {}{} dx {}", name_of(dtype), rows, channels, info_of(t.op).name,
                                 t.skip ? " skip" : "", int(t.dx)));
        const std::size_t n = rows * channels, offset = channels % 3 == 0 ? 1 : 0;
        const std::vector<S> x = narrowed<S>(random.normals<T>(n)), before = narrowed<S>(wild<S>(random, n)),
                             dy = narrowed<S>(wild<S>(random, n)), old = narrowed<S>(random.normals<T>(n));
        DeviceArray<S> px(device(), x, offset), skip(device(), before, offset), y(device(), n, S{}, offset),
            normalized(device(), n), sum(device(), n);
        DeviceArray<T> scale(device(), random.normals<T>(channels)), shift(device(), random.normals<T>(channels)),
            mean(device(), channels), inv_std(device(), channels), mean2(device(), channels), inv_std2(device(), channels),
            running(device(), channels, T(0.5)), variance(device(), channels, T(2));
        DeviceArray<Gates> gates(device(), {Gates{0.75f, -1.25f, 1.5f, 0.375f}});
        BatchNormForward f{.dtype = dtype, .rows = rows, .channels = channels, .x = px.data(), .y = normalized.data()};
        f.scale = scale.data(), f.shift = shift.data(), f.mean = mean.data(), f.inv_std = inv_std.data();
        f.running_mean = running.data(), f.running_variance = variance.data();
        device().batch_norm_forward(f);
        const std::vector<S> n_stored = normalized.get();
        std::vector<S> sum_stored = n_stored;
        if (t.skip) {
          device().residual_forward({dtype, n, skip.data(), normalized.data(), sum.data(), gates.data(), kScale});
          sum_stored = sum.get();
        }
        f.op = t.op, f.skip = t.skip ? skip.data() : nullptr, f.gates = gates.data(), f.branch_scale = kScale;
        f.y = y.data();
        device().batch_norm_forward(f);
        Sinks<S> of_x(device()), of_n(device()), of_sum(device()), of_y(device());
        DeviceArray<S> y2(device(), n, S{}, offset);
        BatchNormForward g = f;
        g.y = y2.data(), g.mean = mean2.data(), g.inv_std = inv_std2.data();
        g.x_stats = of_x.stats(), g.n_stats = of_n.stats(), g.sum_stats = of_sum.stats(), g.y_stats = of_y.stats();
        g.x_exponents = of_x.bins(), g.n_exponents = of_n.bins();
        g.sum_exponents = of_sum.bins(), g.y_exponents = of_y.bins();
        device().batch_norm_forward(g);
        EXPECT_TRUE(all_same(widened(y2.get()), widened(y.get())));
        EXPECT_TRUE(all_same(mean2.get(), mean.get()));
        EXPECT_TRUE(all_same(inv_std2.get(), inv_std.get()));
        of_x.expect(x);
        of_n.expect(n_stored);
        of_sum.expect(sum_stored);
        of_y.expect(y.get(), t.op);

        // What separate launches would store: d behind op, and the branch's part of it.
        DeviceArray<S> d(device(), dy), dn(device(), n);
        device().pointwise_backward(
            {.op = t.op, .dtype = dtype, .n = n, .saved = y.data(), .dy = d.data(), .dx = d.data()});
        std::vector<S> dn_stored = d.get();
        if (t.skip) {
          device().residual_backward({dtype, n, d.data(), nullptr, GradMode::none, dn.data(), GradMode::overwrite,
                                      gates.data(), kScale});
          dn_stored = dn.get();
        }
        const auto backward = [&](DeviceArray<S>& from, DeviceArray<S>& dx, DeviceArray<S>& dskip, DeviceArray<T>& dscale,
                                  DeviceArray<T>& dshift) {
          BatchNormBackward b{.dtype = dtype, .rows = rows, .channels = channels, .x = px.data(), .dy = from.data()};
          b.scale = scale.data(), b.mean = mean.data(), b.inv_std = inv_std.data();
          b.dx = dx.data(), b.dx_mode = t.dx, b.dscale = dscale.data(), b.dshift = dshift.data();
          b.op = t.op, b.y = y.data(), b.has_skip = t.skip, b.dskip = dskip.data(), b.skip_mode = t.dskip;
          b.gates = gates.data(), b.branch_scale = kScale;
          return b;
        };
        DeviceArray<S> from(device(), dy, offset), dx(device(), old, offset), dskip(device(), old);
        DeviceArray<S> from2(device(), dy, offset), dx2(device(), old, offset), dskip2(device(), old);
        DeviceArray<T> dscale(device(), channels), dshift(device(), channels), dscale2(device(), channels),
            dshift2(device(), channels);
        device().batch_norm_backward(backward(from, dx, dskip, dscale, dshift));
        Sinks<S> of_dy(device()), of_dsum(device()), of_dn(device()), of_dx(device());
        // The skip's gradient over dy, where that is allowed.
        BatchNormBackward b = backward(from2, dx2, t.dskip == GradMode::overwrite ? from2 : dskip2, dscale2, dshift2);
        b.dy_stats = of_dy.stats(), b.dsum_stats = of_dsum.stats(), b.dn_stats = of_dn.stats(), b.dx_stats = of_dx.stats();
        b.dy_exponents = of_dy.bins(), b.dsum_exponents = of_dsum.bins();
        b.dn_exponents = of_dn.bins(), b.dx_exponents = of_dx.bins();
        device().batch_norm_backward(b);
        EXPECT_TRUE(all_same(widened(dx2.get()), widened(dx.get())));
        EXPECT_TRUE(all_same(widened((t.dskip == GradMode::overwrite ? from2 : dskip2).get()), widened(dskip.get())));
        EXPECT_TRUE(all_same(dscale2.get(), dscale.get()));
        EXPECT_TRUE(all_same(dshift2.get(), dshift.get()));
        of_dy.expect(dy);
        of_dsum.expect(d.get());
        of_dn.expect(dn_stored);
        of_dx.expect(t.dx == GradMode::none ? std::vector<S>{} : dx.get());
      }
  });
}

// Of running moments, and of one sink alone.
TEST_P(BatchNormMeasured, InEvaluation) {
  Random random(96);
  const std::vector<float> x = random.normals<float>(700 * 6);
  DeviceArray<float> px(device(), x), y(device(), x.size()), mean(device(), 6), variance(device(), 6, 2.0f);
  Sinks<float> of_y(device());
  BatchNormForward f{.rows = 700, .channels = 6, .x = px.data(), .y = y.data(), .running_mean = mean.data(),
                     .running_variance = variance.data(), .training = false};
  f.y_stats = of_y.stats(), f.y_exponents = of_y.bins();
  device().batch_norm_forward(f);
  of_y.expect(y.get());
}

GRADFLOW_TEST_ON_BACKENDS(BatchNormMeasured);

}  // namespace
}  // namespace gradflow::kernels::test
