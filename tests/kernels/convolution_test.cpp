// Convolutions against the definition in f64, written as a sum over all pairs of input and output pixels.
#include "bf16_numbers.h"
#include "support.h"

namespace gradflow::kernels::test {
namespace {

struct ConvolutionCase {
  const char* name;
  ConvolutionDesc d;
};

// batch, height, width, channels, outputs, kernel, stride, padding, groups, bias
ConvolutionDesc square(std::int64_t b, std::int64_t h, std::int64_t w, std::int64_t c, std::int64_t o,
                       std::int64_t k, std::int64_t s, std::int64_t p, std::int64_t g = 1,
                       bool bias = false) {
  return {.batch = b,
          .height = h,
          .width = w,
          .channels = c,
          .outputs = o,
          .kernel_h = k,
          .kernel_w = k,
          .stride_h = s,
          .stride_w = s,
          .pad_h = p,
          .pad_w = p,
          .groups = g,
          .bias = bias};
}

std::vector<ConvolutionCase> convolution_cases() {
  std::vector<ConvolutionCase> all = {
      {"stem", square(2, 9, 8, 3, 16, 3, 1, 1)},
      {"same", square(3, 8, 8, 16, 16, 3, 1, 1)},
      {"odd_channels", square(2, 5, 7, 5, 9, 3, 1, 1, 1, true)},
      {"stride_even", square(2, 8, 8, 16, 32, 3, 2, 1)},
      {"stride_odd", square(2, 7, 9, 4, 6, 3, 2, 1)},
      {"last_rows_unread", square(2, 8, 6, 3, 5, 3, 2, 0)},
      {"pointwise", square(2, 5, 5, 16, 48, 1, 1, 0, 1, true)},
      {"pointwise_stride", square(2, 7, 7, 16, 32, 1, 2, 0)},
      {"no_padding", square(1, 6, 6, 4, 4, 3, 1, 0, 1, true)},
      {"groups", square(2, 6, 6, 8, 12, 3, 1, 1, 4, true)},
      {"groups_stride", square(2, 7, 7, 32, 32, 3, 2, 1, 2)},
      {"depthwise", square(2, 6, 5, 16, 16, 3, 1, 1, 16)},
      {"seven", square(1, 17, 15, 3, 8, 7, 2, 3)},
      {"whole_image", square(3, 4, 4, 8, 10, 4, 1, 0, 1, true)},
      {"one_pixel", square(5, 1, 1, 3, 2, 1, 1, 0)},
      {"wide_padding", square(1, 3, 3, 2, 2, 2, 1, 2)},
  };
  ConvolutionDesc oblong = square(2, 7, 6, 3, 4, 3, 1, 1);
  oblong.kernel_w = 5, oblong.stride_w = 2, oblong.pad_w = 0, oblong.pad_h = 2;
  all.push_back({"oblong", oblong});
  return all;
}

// f(x index, w index, y index) for all products of the definition.
template <class F>
void for_each_product(const ConvolutionDesc& d, const F& f) {
  const std::int64_t in = d.channels / d.groups, out = d.outputs / d.groups;
  for (std::int64_t b = 0; b < d.batch; ++b)
    for (std::int64_t p = 0; p < d.out_height(); ++p)
      for (std::int64_t q = 0; q < d.out_width(); ++q)
        for (std::int64_t i = 0; i < d.height; ++i)
          for (std::int64_t j = 0; j < d.width; ++j) {
            const std::int64_t r = i + d.pad_h - p * d.stride_h, s = j + d.pad_w - q * d.stride_w;
            if (r < 0 || r >= d.kernel_h || s < 0 || s >= d.kernel_w) continue;
            for (std::int64_t o = 0; o < d.outputs; ++o)
              for (std::int64_t c = 0; c < in; ++c)
                f(std::size_t(((b * d.height + i) * d.width + j) * d.channels + o / out * in + c),
                  std::size_t(((o * d.kernel_h + r) * d.kernel_w + s) * in + c),
                  std::size_t(((b * d.out_height() + p) * d.out_width() + q) * d.outputs + o));
          }
}

struct Sums {  // of products, and of their magnitudes for the tolerance
  std::vector<double> value, magnitude;
  explicit Sums(std::size_t n) : value(n), magnitude(n) {}
  void add(std::size_t i, double x) {
    value[i] += x;
    magnitude[i] += std::fabs(x);
  }
};

// Every case by itself: what a vendor's library does not have of one says nothing of the others.
template <class F>
void for_each_case(DType dtype, const F& f) {
  for (const ConvolutionCase& c : convolution_cases()) {
    ConvolutionDesc d = c.d;
    d.dtype = dtype;
    SCOPED_TRACE(fmt::format("{} {}", c.name, name_of(d.dtype)));
    try {
      f(d);
    } catch (const std::exception& e) {
      ADD_FAILURE() << e.what();
    }
  }
}

class ConvolutionOnBackends : public BackendTest {};

TEST_P(ConvolutionOnBackends, AgreesWithTheDefinition) {
  Random random(91);
  for_each_real([&]<class T>() {
    for_each_case(dtype_of<T>(), [&](const ConvolutionDesc& d) {
      const auto convolution = device().prepare_convolution(d);
      const std::size_t nx = std::size_t(d.batch * d.height * d.width * d.channels),
                        nw = std::size_t(d.outputs * d.kernel_h * d.kernel_w * (d.channels / d.groups)),
                        ny = std::size_t(d.batch * d.out_height() * d.out_width() * d.outputs);
      const std::vector<T> x = random.normals<T>(nx), w = random.normals<T>(nw), dy = random.normals<T>(ny),
                           bias = random.normals<T>(std::size_t(d.outputs)), old_x = random.normals<T>(nx),
                           old_w = random.normals<T>(nw);
      Sums y(ny), dx(nx), dw(nw);
      for_each_product(d, [&](std::size_t ix, std::size_t iw, std::size_t iy) {
        y.add(iy, double(x[ix]) * double(w[iw]));
        dx.add(ix, double(dy[iy]) * double(w[iw]));
        dw.add(iw, double(dy[iy]) * double(x[ix]));
      });
      if (d.bias)
        for (std::size_t i = 0; i < ny; ++i) y.add(i, double(bias[i % bias.size()]));
      // An f32 sum of n products errs by at most (n + 1) eps / 2 of their magnitudes; in practice by sqrt(n).
      // Six times eps leaves room for every n here (up to 600) at three times its standard error.
      const auto near = [](const Sums& sums) {
        return [&](std::size_t i) { return 6 * epsilon<T>() * sums.magnitude[i] + 1e-30; };
      };
      const std::size_t bytes =
          std::max({convolution->forward_workspace(), convolution->backward_data_workspace(),
                    convolution->backward_weights_workspace()});
      DeviceArray<unsigned char> room(device(), bytes);
      void* workspace = room.data();
      DeviceArray<T> px(device(), x, 1), pw(device(), w, 1), pdy(device(), dy, 1), pbias(device(), bias);
      DeviceArray<T> py(device(), ny, T(NAN), 1);
      convolution->forward(px.data(), pw.data(), d.bias ? pbias.data() : nullptr, py.data(), workspace);
      EXPECT_TRUE(all_near(py.get(), y.value, near(y))) << "forward";
      for (const bool accumulate : {false, true}) {
        const GradMode mode = accumulate ? GradMode::accumulate : GradMode::overwrite;
        DeviceArray<T> pdx(device(), accumulate ? old_x : std::vector<T>(nx, T(NAN)), 1);
        DeviceArray<T> pdw(device(), accumulate ? old_w : std::vector<T>(nw, T(NAN)), 1);
        convolution->backward_data(pdy.data(), pw.data(), pdx.data(), mode, workspace);
        convolution->backward_weights(px.data(), pdy.data(), pdw.data(), mode, workspace);
        convolution->backward_data(pdy.data(), pw.data(), nullptr, GradMode::none, workspace);
        convolution->backward_weights(px.data(), pdy.data(), nullptr, GradMode::none, workspace);
        Sums want_x = dx, want_w = dw;
        if (accumulate) {
          for (std::size_t i = 0; i < nx; ++i) want_x.add(i, double(old_x[i]));
          for (std::size_t i = 0; i < nw; ++i) want_w.add(i, double(old_w[i]));
        }
        EXPECT_TRUE(all_near(pdx.get(), want_x.value, near(want_x))) << "data, accumulate " << accumulate;
        EXPECT_TRUE(all_near(pdw.get(), want_w.value, near(want_w))) << "weights, accumulate " << accumulate;
      }
      device().synchronize();
    });
  });
}

// bf16 images and weights; an f32 bias and an f32 gradient of the weights.
TEST_P(ConvolutionOnBackends, InBf16AgreesWithTheDefinition) {
  Random random(92);
  for_each_case(DType::bf16, [&](const ConvolutionDesc& d) {
    const auto convolution = device().prepare_convolution(d);
    const std::size_t nx = std::size_t(d.batch * d.height * d.width * d.channels),
                      nw = std::size_t(d.outputs * d.kernel_h * d.kernel_w * (d.channels / d.groups)),
                      ny = std::size_t(d.batch * d.out_height() * d.out_width() * d.outputs);
    const auto numbers = [&](std::size_t n) { return rounded(random.normals<float>(n)); };
    const std::vector<Bf16> x = numbers(nx), w = numbers(nw), dy = numbers(ny), old_x = numbers(nx);
    const std::vector<float> bias = random.normals<float>(std::size_t(d.outputs)),
                             old_w = random.normals<float>(nw);
    Sums y(ny), dx(nx), dw(nw);
    for_each_product(d, [&](std::size_t ix, std::size_t iw, std::size_t iy) {
      const double vx = double(to_float(x[ix])), vw = double(to_float(w[iw])), vy = double(to_float(dy[iy]));
      y.add(iy, vx * vw), dx.add(ix, vy * vw), dw.add(iw, vy * vx);
    });
    if (d.bias)
      for (std::size_t i = 0; i < ny; ++i) y.add(i, double(bias[i % bias.size()]));
    // Products of bf16 numbers are exact in f32, whose sums err as in the test above. Rounding to bf16 adds
    // 2^-8 of the result at most; where something is added to it (all of these are below 6), of the sum as
    // well.
    const auto near = [](const Sums& sums, int roundings) {
      return [&sums, roundings](std::size_t i) {
        return 6 * epsilon<float>() * sums.magnitude[i] + 1e-30 +
               0x1.01p-8 * (roundings * std::fabs(sums.value[i]) + (roundings > 1 ? 6 : 0));
      };
    };
    const std::size_t bytes =
        std::max({convolution->forward_workspace(), convolution->backward_data_workspace(),
                  convolution->backward_weights_workspace()});
    DeviceArray<unsigned char> room(device(), bytes);
    void* workspace = room.data();
    DeviceArray<Bf16> px(device(), x, 1), pw(device(), w, 1), pdy(device(), dy, 1),
        py(device(), ny, Bf16{7}, 1);
    DeviceArray<float> pbias(device(), bias);
    convolution->forward(px.data(), pw.data(), d.bias ? pbias.data() : nullptr, py.data(), workspace);
    // CUDA begins with the rounded bias and adds to it.
    EXPECT_TRUE(all_near(widened(py.get()), y.value, near(y, d.bias && !device().is_host() ? 2 : 1))) << "forward";
    for (const bool accumulate : {false, true}) {
      const GradMode mode = accumulate ? GradMode::accumulate : GradMode::overwrite;
      DeviceArray<Bf16> pdx(device(), accumulate ? old_x : std::vector<Bf16>(nx, Bf16{0x7fff}), 1);
      DeviceArray<float> pdw(device(), accumulate ? old_w : std::vector<float>(nw, NAN), 1);
      convolution->backward_data(pdy.data(), pw.data(), pdx.data(), mode, workspace);
      convolution->backward_weights(px.data(), pdy.data(), pdw.data(), mode, workspace);
      Sums want_x = dx, want_w = dw;
      if (accumulate) {
        for (std::size_t i = 0; i < nx; ++i) want_x.add(i, double(to_float(old_x[i])));
        for (std::size_t i = 0; i < nw; ++i) want_w.add(i, double(old_w[i]));
      }
      EXPECT_TRUE(all_near(widened(pdx.get()), want_x.value, near(want_x, accumulate ? 2 : 1)))
          << "data, accumulate " << accumulate;
      EXPECT_TRUE(all_near(pdw.get(), want_w.value, near(want_w, device().is_host() ? 0 : accumulate ? 2 : 1)))
          << "weights, accumulate " << accumulate;
    }
    device().synchronize();
  });
}

TEST_P(ConvolutionOnBackends, EqualDescriptionsShareOne) {
  const ConvolutionDesc d = square(2, 4, 4, 3, 2, 3, 1, 1);
  EXPECT_EQ(device().prepare_convolution(d), device().prepare_convolution(d));
  ConvolutionDesc other = d;
  other.stride_w = 2;
  EXPECT_NE(device().prepare_convolution(d), device().prepare_convolution(other));
}

TEST_P(ConvolutionOnBackends, TheLibrarySaysHowItRunsEachPass) {
  ConvolutionDesc d = square(2, 4, 4, 3, 2, 3, 1, 1);
  for (const DType dtype : {DType::f32, DType::bf16}) {
    d.dtype = dtype;
    if (!device().supports(dtype)) continue;
    const auto convolution = device().prepare_convolution(d);
    for (const ConvolutionPass pass :
         {ConvolutionPass::forward, ConvolutionPass::backward_data, ConvolutionPass::backward_weights}) {
      const std::string text = convolution->description(pass);
      EXPECT_FALSE(text.empty());
      EXPECT_FALSE(text.ends_with(' ')) << text;  // what is widened has a library's pass, too
    }
  }
}

TEST_P(ConvolutionOnBackends, AnEmptyBatchHasAZeroGradient) {
  const auto convolution = device().prepare_convolution(square(0, 4, 4, 3, 2, 3, 1, 1));
  DeviceArray<float> dw(device(), 2 * 9 * 3, NAN);
  convolution->forward(nullptr, nullptr, nullptr, nullptr, nullptr);
  convolution->backward_data(nullptr, nullptr, nullptr, GradMode::overwrite, nullptr);
  convolution->backward_weights(nullptr, nullptr, dw.data(), GradMode::overwrite, nullptr);
  EXPECT_TRUE(all_same(dw.get(), std::vector<float>(2 * 9 * 3, 0.0f)));
}

TEST_P(ConvolutionOnBackends, WhatCannotBeIsRefused) {
  ConvolutionDesc d = square(2, 2, 2, 3, 2, 3, 1, 0);
  EXPECT_THROW(static_cast<void>(device().prepare_convolution(d)), InternalError);  // nothing would be left
  d = square(2, 4, 4, 3, 4, 3, 1, 1, 2);
  EXPECT_THROW(static_cast<void>(device().prepare_convolution(d)), InternalError);  // 3 channels in 2 groups
}

GRADFLOW_TEST_ON_BACKENDS(ConvolutionOnBackends);

}  // namespace
}  // namespace gradflow::kernels::test
