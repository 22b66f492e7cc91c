// Pooling and the shortcut against their definitions.
#include "support.h"

namespace gradflow::kernels::test {
namespace {

struct PoolingCase {
  const char* name;
  PoolWindow w;
};

PoolWindow window(std::int64_t b, std::int64_t h, std::int64_t width, std::int64_t c, std::int64_t k,
                  std::int64_t s, std::int64_t p) {
  return {.batch = b,
          .height = h,
          .width = width,
          .channels = c,
          .kernel_h = k,
          .kernel_w = k,
          .stride_h = s,
          .stride_w = s,
          .pad_h = p,
          .pad_w = p};
}

std::vector<PoolingCase> pooling_cases() {
  std::vector<PoolingCase> all = {
      {"two", window(2, 6, 8, 5, 2, 2, 0)},          {"imagenet", window(2, 9, 7, 16, 3, 2, 1)},
      {"overlapping", window(1, 5, 6, 3, 3, 1, 1)},  {"last_column_unread", window(2, 5, 7, 1, 2, 2, 0)},
      {"whole_image", window(3, 4, 4, 70, 4, 1, 0)}, {"one_pixel", window(4, 1, 1, 3, 1, 1, 0)},
      {"gaps", window(2, 7, 7, 2, 2, 3, 0)},         {"threads", window(4, 17, 18, 33, 3, 2, 1)},
      {"empty", window(0, 4, 4, 3, 2, 2, 0)},
  };
  PoolWindow oblong = window(2, 6, 9, 4, 2, 2, 1);
  oblong.kernel_w = 3, oblong.stride_w = 1, oblong.pad_h = 0;
  all.push_back({"oblong", oblong});
  return all;
}

std::size_t inputs(const PoolWindow& w) { return std::size_t(w.batch * w.height * w.width * w.channels); }
std::size_t outputs(const PoolWindow& w) {
  return std::size_t(w.batch * w.out_height() * w.out_width() * w.channels);
}

// f(input, pixel of the image, output, first pixel of the window?) for every pair that meets, windows in
// order.
template <class F>
void for_each_pair(const PoolWindow& w, const F& f) {
  for (std::int64_t b = 0; b < w.batch; ++b)
    for (std::int64_t p = 0; p < w.out_height(); ++p)
      for (std::int64_t q = 0; q < w.out_width(); ++q)
        for (std::int64_t c = 0; c < w.channels; ++c) {
          bool first = true;
          for (std::int64_t r = 0; r < w.kernel_h; ++r)
            for (std::int64_t s = 0; s < w.kernel_w; ++s) {
              const std::int64_t i = p * w.stride_h + r - w.pad_h, j = q * w.stride_w + s - w.pad_w;
              if (i < 0 || i >= w.height || j < 0 || j >= w.width) continue;
              f(std::size_t(((b * w.height + i) * w.width + j) * w.channels + c),
                std::int32_t(i * w.width + j),
                std::size_t(((b * w.out_height() + p) * w.out_width() + q) * w.channels + c), first);
              first = false;
            }
        }
}

class Pooling : public BackendTest {};

TEST_P(Pooling, Max) {
  Random random(71);
  for_each_real([&]<class T>() {
    for (const PoolingCase& c : pooling_cases()) {
      SCOPED_TRACE(fmt::format("{} {}", c.name, name_of(dtype_of<T>())));
      std::vector<T> x = random.normals<T>(inputs(c.w));
      for (std::size_t i = 0; i < x.size(); ++i) {
        x[i] = std::round(x[i] * 2);  // many ties, zeros of both signs
        if (i % 23 == 5) x[i] = T(NAN);
        if (i % 19 == 7) x[i] = -std::numeric_limits<T>::infinity();
      }
      std::vector<T> want(outputs(c.w));
      std::vector<std::int32_t> want_winners(want.size());
      std::vector<double> want_dx(x.size());
      std::vector<std::size_t> from(want.size());
      for_each_pair(c.w, [&](std::size_t in, std::int32_t pixel, std::size_t out, bool first) {
        if (first || x[in] > want[out] || std::isnan(x[in])) {
          want[out] = x[in];
          want_winners[out] = pixel;
          from[out] = in;
        }
      });
      const std::vector<T> dy = random.normals<T>(want.size()), old = random.normals<T>(x.size());
      for (std::size_t i = 0; i < want.size(); ++i) want_dx[from[i]] += double(dy[i]);
      DeviceArray<T> px(device(), x, 1), py(device(), want.size(), T(5), 1), pdy(device(), dy);
      DeviceArray<std::int32_t> winners(device(), want.size(), -1);
      device().max_pool_forward({dtype_of<T>(), c.w, px.data(), py.data(), winners.data()});
      EXPECT_TRUE(all_same(py.get(), want));
      EXPECT_EQ(winners.get(), want_winners);
      DeviceArray<T> alone(device(), want.size(), T(5));
      device().max_pool_forward({dtype_of<T>(), c.w, px.data(), alone.data(), nullptr});
      EXPECT_TRUE(all_same(alone.get(), want));
      for (const GradMode mode : kModes) {
        DeviceArray<T> pdx(device(), old, 1);
        device().max_pool_backward({dtype_of<T>(), c.w, winners.data(), pdy.data(), pdx.data(), mode});
        std::vector<double> expected(x.size());
        for (std::size_t i = 0; i < x.size(); ++i)
          expected[i] = (mode == GradMode::overwrite ? 0.0 : double(old[i])) +
                        (mode == GradMode::none ? 0.0 : want_dx[i]);
        // Up to nine terms of size one (and the old value), one rounding each.
        EXPECT_TRUE(all_near(pdx.get(), expected, [](std::size_t) { return 40 * epsilon<T>(); }));
      }
    }
  });
}

TEST_P(Pooling, Average) {
  Random random(72);
  for_each_real([&]<class T>() {
    for (const PoolingCase& c : pooling_cases()) {
      SCOPED_TRACE(fmt::format("{} {}", c.name, name_of(dtype_of<T>())));
      const std::vector<T> x = random.normals<T>(inputs(c.w)), dy = random.normals<T>(outputs(c.w)),
                           old = random.normals<T>(x.size());
      const double share = 1 / double(c.w.kernel_h * c.w.kernel_w);
      std::vector<double> y(dy.size()), dx(x.size());
      for_each_pair(c.w, [&](std::size_t in, std::int32_t, std::size_t out, bool) {
        y[out] += double(x[in]) * share;
        dx[in] += double(dy[out]) * share;
      });
      DeviceArray<T> px(device(), x, 1), py(device(), dy.size(), T(NAN), 1), pdy(device(), dy);
      device().average_pool_forward({dtype_of<T>(), c.w, px.data(), py.data()});
      // Sums in f64 and one rounding (f64: one a term, of up to 16 terms of size one).
      EXPECT_TRUE(all_near(py.get(), y, [](std::size_t) { return 4 * epsilon<T>(); }));
      for (const GradMode mode : kModes) {
        DeviceArray<T> pdx(device(), old, 1);
        device().average_pool_backward({dtype_of<T>(), c.w, pdy.data(), pdx.data(), mode});
        std::vector<double> want(x.size());
        for (std::size_t i = 0; i < x.size(); ++i)
          want[i] =
              (mode == GradMode::overwrite ? 0.0 : double(old[i])) + (mode == GradMode::none ? 0.0 : dx[i]);
        EXPECT_TRUE(all_near(pdx.get(), want, [](std::size_t) { return 40 * epsilon<T>(); }));
      }
    }
  });
}

TEST_P(Pooling, Shortcut) {
  Random random(73);
  const ShortcutShape shapes[] = {{2, 6, 8, 4, 8, 2}, {3, 5, 7, 3, 5, 2},     {1, 4, 4, 6, 6, 1},
                                  {2, 3, 2, 1, 4, 3}, {4, 16, 15, 16, 32, 2}, {0, 4, 4, 2, 4, 2}};
  for_each_real([&]<class T>() {
    for (const ShortcutShape& s : shapes) {
      SCOPED_TRACE(fmt::format("{}x{}x{} to {} channels, stride {}", s.height, s.width, s.channels, s.outputs,
                               s.stride));
      const std::size_t n = std::size_t(s.batch * s.height * s.width * s.channels);
      const std::vector<T> x = random.normals<T>(n), old = random.normals<T>(n);
      const std::vector<T> dy =
          random.normals<T>(std::size_t(s.batch * s.out_height() * s.out_width() * s.outputs));
      std::vector<T> y(dy.size(), T(0)), dx(n, T(0));
      for (std::int64_t b = 0; b < s.batch; ++b)
        for (std::int64_t i = 0; i * s.stride < s.height; ++i)
          for (std::int64_t j = 0; j * s.stride < s.width; ++j)
            for (std::int64_t c = 0; c < s.channels; ++c) {
              const auto in =
                  std::size_t(((b * s.height + i * s.stride) * s.width + j * s.stride) * s.channels + c);
              const auto out = std::size_t(((b * s.out_height() + i) * s.out_width() + j) * s.outputs + c);
              y[out] = x[in];
              dx[in] = dy[out];
            }
      DeviceArray<T> px(device(), x, 1), py(device(), dy.size(), T(NAN), 1), pdy(device(), dy, 1);
      device().shortcut_forward({dtype_of<T>(), s, px.data(), py.data()});
      EXPECT_TRUE(all_same(py.get(), y));
      for (const GradMode mode : kModes) {
        DeviceArray<T> pdx(device(), old, 1);
        device().shortcut_backward({dtype_of<T>(), s, pdy.data(), pdx.data(), mode});
        std::vector<T> want = old;
        for (std::size_t i = 0; i < n; ++i)
          if (mode != GradMode::none) want[i] = (mode == GradMode::overwrite ? T(0) : old[i]) + dx[i];
        EXPECT_TRUE(all_same(pdx.get(), want));
      }
    }
  });
}

GRADFLOW_TEST_ON_BACKENDS(Pooling);

}  // namespace
}  // namespace gradflow::kernels::test
