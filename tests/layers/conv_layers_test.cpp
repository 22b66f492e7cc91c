// Layers over images: gradients against differences of the loss, shapes that do not fit, closed forms.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cmath>
#include <functional>

#include "engine/expect_error.h"
#include "gradflow/kernels/error.h"
#include "gradflow/layers/activation.h"
#include "gradflow/layers/batch_norm.h"
#include "gradflow/layers/convolution.h"
#include "gradflow/layers/linear.h"
#include "gradflow/layers/pooling.h"
#include "gradflow/layers/residual_add.h"
#include "layers/harness.h"
#include "layers/layer_case.h"

namespace gradflow {
namespace {

using test::add_cotangent;
using test::check_with_readers;
using test::LayerCase;
using test::Network;
using test::single;

const TensorSpec kImages{{2, 5, 4, 4}, DType::f64};

LayerCase convolution(const std::string& name, ConvolutionOptions o) { return single<Convolution>(name, o); }

std::vector<LayerCase> cases() {
  ConvolutionOptions grouped = ConvolutionOptions::square(6, 3), biased = ConvolutionOptions::square(3, 3),
                     oblong = ConvolutionOptions::square(3, 3, 2);
  grouped.groups = 2;
  biased.bias = true;
  biased.pad_h = biased.pad_w = 0;
  oblong.kernel_w = 1, oblong.pad_w = 0, oblong.stride_w = 1;
  return {convolution("same", ConvolutionOptions::square(3, 3)),
          convolution("stride_two_of_odd", ConvolutionOptions::square(5, 3, 2)),
          convolution("one_by_one", ConvolutionOptions::square(6, 1)),
          convolution("one_by_one_stride_two", ConvolutionOptions::square(3, 1, 2)),
          convolution("groups", grouped),
          convolution("bias_without_padding", biased),
          convolution("oblong", oblong),
          single<MaxPool>("max_pool", PoolOptions{}),
          single<MaxPool>("max_pool_overlapping", PoolOptions{3, 3, 2, 2, 1, 1}),
          single<AveragePool>("average_pool", PoolOptions{}),
          single<AveragePool>("average_pool_overlapping", PoolOptions{3, 3, 2, 2, 1, 1}),
          single<GlobalAveragePool>("global_average_pool"),
          single<ZeroPadShortcut>("shortcut", std::int64_t{7}, std::int64_t{2}),
          single<ZeroPadShortcut>("shortcut_same", std::int64_t{4}, std::int64_t{1}),
          single<BatchNorm>("batch_norm", BatchNormOptions{.torch_names = true})};
}

class ImageLayer : public testing::TestWithParam<LayerCase> {};

TEST_P(ImageLayer, OverwritesAGradient) { EXPECT_GT(check_with_readers(GetParam(), kImages, 1), 30); }
TEST_P(ImageLayer, AddsToAGradient) { EXPECT_GT(check_with_readers(GetParam(), kImages, 2), 30); }

INSTANTIATE_TEST_SUITE_P(Layers, ImageLayer, testing::ValuesIn(cases()),
                         [](const auto& layer) { return layer.param.name; });

std::string infer_error(const Layer& layer, const TensorSpec& x) {
  try {
    static_cast<void>(layer.infer(std::vector{x}));
  } catch (const UserError& e) {
    return e.what();
  }
  return "accepted";
}

TEST(ImageShapes, WhatDoesNotFitIsSaidInOneLine) {
  const TensorSpec small{{2, 2, 2, 6}}, flat{{2, 6}};
  ConvolutionOptions o = ConvolutionOptions::square(4, 3);
  o.pad_h = o.pad_w = 0;
  EXPECT_EQ(infer_error(Convolution(o), small),
            "a window of 3x3 does not fit into the 2x2 image: nothing would be left; larger images or fewer "
            "strides "
            "are needed");
  EXPECT_EQ(infer_error(MaxPool(PoolOptions{5, 5, 1, 1, 1, 1}), small),
            "a window of 5x5 does not fit into the 2x2 image padded by 1x1: nothing would be left; larger "
            "images or "
            "fewer strides are needed");
  o.groups = 4;
  EXPECT_EQ(infer_error(Convolution(o), small), "6 channels and 4 outputs do not divide into 4 groups");
  EXPECT_EQ(infer_error(Convolution(o), flat),
            "input f32[2, 6]: a convolution takes images [batch, height, width, channels]");
  EXPECT_EQ(infer_error(ZeroPadShortcut(4, 2), small),
            "a shortcut from 6 channels to 4: it can only add channels");
  EXPECT_THROW(MaxPool(PoolOptions{2, 2, 1, 1, 2, 2}), UserError);
  EXPECT_THROW(Convolution(ConvolutionOptions::square(0, 3)), UserError);
}

TEST(ImageShapes, AreThoseOfTheFormulas) {
  const auto shape = [](const Layer& layer, const Shape& x) {
    return layer.infer(std::vector{TensorSpec{x}}).outputs[0].shape;
  };
  EXPECT_EQ(shape(Convolution(ConvolutionOptions::square(8, 3, 2)), {1, 7, 8, 3}), (Shape{1, 4, 4, 8}));
  EXPECT_EQ(shape(Convolution(ConvolutionOptions::square(64, 7, 2)), {1, 224, 224, 3}),
            (Shape{1, 112, 112, 64}));
  EXPECT_EQ(shape(MaxPool(PoolOptions{3, 3, 2, 2, 1, 1}), {1, 112, 112, 64}), (Shape{1, 56, 56, 64}));
  EXPECT_EQ(shape(ZeroPadShortcut(32, 2), {1, 7, 7, 16}), (Shape{1, 4, 4, 32}));
  EXPECT_EQ(shape(GlobalAveragePool(), {5, 7, 7, 16}), (Shape{5, 16}));
}

// A convolution with the identity in its middle tap leaves images as they are, and its gradient too.
TEST(ImageLayers, TheIdentityKernelIsTheIdentity) {
  Graph g(DType::f64);
  const ValueId x = g.input("x", kImages);
  add_cotangent(g, "loss", g.add<Convolution>("conv", {x}, ConvolutionOptions::square(4, 3)), 8);
  Network n(g, 8, {.retain = true, .input_gradients = {x}});
  std::vector<double> w(4 * 3 * 3 * 4);
  for (std::size_t c = 0; c < 4; ++c) w[(c * 9 + 4) * 4 + c] = 1;
  n.set_parameter("conv.weight", w);
  n.executor->step();
  EXPECT_EQ(n.value("conv"), n.value("x"));
  EXPECT_EQ(n.gradient("x"), n.gradient("conv"));
}

// On one pixel a convolution is a linear layer with the weights of the middle tap.
TEST(ImageLayers, AOnePixelConvolutionIsALinearLayer) {
  Graph g(DType::f64);
  const ValueId x = g.input("x", {{6, 1, 1, 5}, DType::f64}), rows = g.input("rows", {{6, 5}, DType::f64});
  ConvolutionOptions o = ConvolutionOptions::square(3, 1);
  o.bias = true;
  add_cotangent(g, "loss1", g.add<Convolution>("conv", {x}, o), 9);
  add_cotangent(g, "loss2", g.add<Linear>("linear", {rows}, 3), 10);
  Network n(g, 9, {.retain = true, .input_gradients = {x, rows}});
  const auto w = test::uniform_numbers(15, -1, 1, 5, "w"), b = test::uniform_numbers(3, -1, 1, 5, "b");
  for (const char* layer : {"conv", "linear"}) {
    n.set_parameter(fmt::format("{}.weight", layer), w);
    n.set_parameter(fmt::format("{}.bias", layer), b);
  }
  for (const char* name : {"x", "rows"})
    std::ranges::copy(test::uniform_numbers(30, -1, 1, 6, "x"), n.executor->input(name).as<double>());
  n.executor->step();
  const auto a = n.value("conv"), c = n.value("linear");
  ASSERT_EQ(a.size(), c.size());
  for (std::size_t i = 0; i < a.size(); ++i) EXPECT_NEAR(a[i], c[i], 1e-14);  // five terms of size one
}

}  // namespace
}  // namespace gradflow
