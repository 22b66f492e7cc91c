// Kernels of convolutional networks against the host backend: pooling, the shortcut, batch norm with what
// follows it, in packs of channels and one by one.
#include "simt/harness.h"

namespace gradflow::kernels::cuda {
namespace {

class Images : public VectorTest {};

// Odd extents, overlapping windows, padding, a window as large as the image, one channel and more than a
// warp.
constexpr PoolWindow kWindows[] = {{2, 6, 5, 3, 2, 2, 2, 2, 0, 0},
                                   {1, 7, 7, 33, 3, 3, 2, 2, 1, 1},
                                   {3, 4, 4, 8, 4, 4, 4, 4, 0, 0},
                                   {1, 1, 9, 1, 1, 3, 1, 1, 0, 1},
                                   {5, 8, 8, 40, 3, 3, 1, 1, 1, 1}};

TEST_F(Images, Pooling) {
  for (const PoolWindow& w : kWindows) {
    for (const bool accumulate : {false, true}) {
      std::vector<float> aligned;
      for (const std::size_t offset : {0u, 1u}) {  // packs of channels where they come in fours; single ones: the same bits
        SIMT_CASE(w.batch << "x" << w.height << "x" << w.width << "x" << w.channels << " accumulate=" << accumulate
                          << " offset=" << offset);
        const auto in = static_cast<std::size_t>(w.batch * w.height * w.width * w.channels);
        const auto out = static_cast<std::size_t>(w.batch * w.out_height() * w.out_width() * w.channels);
        const GradMode mode = accumulate ? GradMode::accumulate : GradMode::overwrite;
        std::vector<float> all;
        // At most nine terms of size one, one rounding each.
        compare(16 * 6e-8, 4.0, [&](Backend& backend) {
          const Array<float> x(backend, numbers(in, 1), offset), y(backend, out, offset), dy(backend, numbers(out, 2), offset);
          const Array<float> dx(backend, numbers(in, 3), offset), average(backend, out, offset);
          const Array<float> da(backend, numbers(in, 4), offset);
          const Array<std::int32_t> winners(backend, out, offset);
          backend.max_pool_forward({DType::f32, w, x.data(), y.data(), winners.data()});
          backend.max_pool_backward({DType::f32, w, winners.data(), dy.data(), dx.data(), mode});
          backend.average_pool_forward({DType::f32, w, x.data(), average.data()});
          backend.average_pool_backward({DType::f32, w, dy.data(), da.data(), mode});
          std::vector<float> results = y.read();
          for (const auto* part : {&dx, &average, &da}) append(results, part->read());
          for (const std::int32_t winner : winners.read()) results.push_back(static_cast<float>(winner));
          if (&backend == &simt) all = results;
          return results;
        });
        if (offset == 0) aligned = all;
        EXPECT_TRUE(aligned.empty() || same_bits(all, aligned));
      }
    }
  }
}

TEST_F(Images, Shortcut) {
  for (const ShortcutShape& s : {ShortcutShape{2, 6, 8, 4, 8, 2},
                                 {3, 5, 7, 3, 5, 2},
                                 {1, 4, 4, 6, 6, 1},
                                 {2, 9, 9, 17, 40, 3},
                                 {7, 3, 4, 4, 6, 1},
                                 {9, 16, 16, 8, 16, 2}}) {
    for (const GradMode mode : {GradMode::overwrite, GradMode::accumulate}) {
      for (const std::size_t offset : {0u, 1u}) {
        SIMT_CASE(s.height << "x" << s.width << "x" << s.channels << " to " << s.outputs << " mode "
                           << static_cast<int>(mode) << " offset=" << offset);
        const auto in = static_cast<std::size_t>(s.batch * s.height * s.width * s.channels);
        const auto out = static_cast<std::size_t>(s.batch * s.out_height() * s.out_width() * s.outputs);
        compare(0, 0, [&](Backend& backend) {
          const Array<float> x(backend, numbers(in, 1), offset), y(backend, numbers(out, 2), offset),
              dy(backend, numbers(out, 3), offset);
          const Array<float> dx(backend, numbers(in, 4), offset);
          backend.shortcut_forward({DType::f32, s, x.data(), y.data()});
          backend.shortcut_backward({DType::f32, s, dy.data(), dx.data(), mode});
          std::vector<float> all = y.read();
          append(all, dx.read());
          return all;
        });
      }
    }
  }
}

// Batch norm, addition and ReLU in one pass, and back. Rounding may put an output on the other side of 0, so
// the skip keeps the sums away from it.
TEST_F(Images, BatchNormWithWhatFollows) {
  for (const auto [rows, channels] :
       {MatrixShape{3, 4}, MatrixShape{50, 32}, MatrixShape{700, 8}, MatrixShape{33, 68}, MatrixShape{40, 5}}) {
    for (const std::size_t offset : {0u, 1u}) {  // 16-byte packs, or single channels
      SIMT_CASE(rows << "x" << channels << " offset=" << offset);
      const std::size_t n = rows * channels;
      // Some roundings of numbers of size one to ten, around a mean near zero.
      compare(16 * 6e-8, 8.0, [&](Backend& backend) {
        std::vector<float> before(n);
        for (std::size_t i = 0; i < n; ++i) before[i] = i % 3 == 0 ? -20.0f : 20.0f;
        const Array<float> x(backend, numbers(n, 1), offset), skip(backend, before, offset),
            y(backend, n, offset);
        const Array<float> dy(backend, numbers(n, 2), offset), dx(backend, numbers(n, 3), offset);
        const Array<float> dskip(backend, numbers(n, 4), offset), mean(backend, channels),
            inv_std(backend, channels);
        const Array<float> scale(backend, numbers(channels, 5)), shift(backend, numbers(channels, 6));
        const Array<float> dscale(backend, numbers(channels, 7)), dshift(backend, numbers(channels, 8));
        const Array<Gates> gates(backend, std::vector<Gates>{{0.5f, 0.75f, 0.5f, 0.75f}});
        BatchNormForward f{.rows = rows, .channels = channels, .x = x.data(), .y = y.data()};
        f.scale = scale.data(), f.shift = shift.data(), f.mean = mean.data(), f.inv_std = inv_std.data();
        f.op = PointwiseId::relu, f.skip = skip.data(), f.gates = gates.data(), f.branch_scale = 0.3;
        backend.batch_norm_forward(f);
        BatchNormBackward b{.rows = rows, .channels = channels, .x = x.data(), .dy = dy.data()};
        b.scale = scale.data(), b.mean = mean.data(), b.inv_std = inv_std.data();
        b.dx = dx.data(), b.dx_mode = GradMode::accumulate;
        b.dscale = dscale.data(), b.dshift = dshift.data(), b.parameter_mode = GradMode::accumulate;
        b.op = PointwiseId::relu, b.y = y.data();
        b.has_skip = true, b.dskip = dskip.data(), b.skip_mode = GradMode::overwrite;
        b.gates = gates.data(), b.branch_scale = 0.3;
        backend.batch_norm_backward(b);
        std::vector<float> all = y.read();
        for (const auto* part : {&dx, &dskip, &mean, &inv_std}) append(all, part->read());
        for (const auto* part : {&dscale, &dshift}) append_sums(all, part->read(), rows);
        return all;
      });
    }
  }
}

}  // namespace
}  // namespace gradflow::kernels::cuda
