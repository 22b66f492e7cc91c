// Gradients against differences of the loss, in f64: every layer, with its gradient overwriting and adding,
// and whole small networks.
#include <fmt/format.h>
#include <gtest/gtest-spi.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cctype>
#include <cmath>
#include <functional>

#include "gradflow/layers/activation.h"
#include "gradflow/layers/batch_norm.h"
#include "gradflow/layers/linear.h"
#include "gradflow/layers/models.h"
#include "gradflow/layers/residual_add.h"
#include "gradflow/layers/scalar.h"
#include "gradflow/layers/softmax_cross_entropy.h"
#include "layers/harness.h"
#include "layers/layer_case.h"

namespace gradflow {
namespace {

using test::add_cotangent;
using test::check_gradients;
using test::check_with_readers;
using test::LayerCase;
using test::Network;
using test::single;

const TensorSpec kInput{{7, 5}, DType::f64};

std::string case_name(const testing::TestParamInfo<LayerCase>& info) { return info.param.name; }

class EveryLayer : public testing::TestWithParam<LayerCase> {};

TEST_P(EveryLayer, OverwritesAGradient) { EXPECT_GT(check_with_readers(GetParam(), kInput, 1), 30); }
TEST_P(EveryLayer, AddsToAGradient) { EXPECT_GT(check_with_readers(GetParam(), kInput, 3), 30); }

// Also without `retain`, where gradients lie over each other.
TEST_P(EveryLayer, IsRightInPlace) {
  Graph g(DType::f64);
  const ValueId x = g.input("x", kInput);
  const ValueId a = g.add<Linear>("before", {x}, 5);
  const ValueId b = GetParam().add(g, "layer", a);
  add_cotangent(g, "loss", g.add<Activation>("after", {b}, PointwiseId::tanh), 3);
  Network kept(g, 5, {.retain = true, .input_gradients = {x}});
  Network shared(g, 5, {.input_gradients = {x}});
  EXPECT_LT(shared.executor->plan().arena_bytes, kept.executor->plan().arena_bytes);
  kept.executor->step();
  shared.executor->step();
  EXPECT_EQ(kept.gradient("x"), shared.gradient("x"));
  for (const ParameterSpec& p : g.parameters())
    EXPECT_EQ(kept.parameter_gradient(p.name), shared.parameter_gradient(p.name)) << p.name;
}

LayerCase residual(const std::string& name, double scale, bool crossed) {
  return {name, [=](Graph& g, const std::string& node, ValueId x) {
            const ValueId branch = g.add<Activation>(node + ".branch", {x}, PointwiseId::tanh);
            return crossed ? g.add<ResidualAdd>(node, {branch, x}, scale)
                           : g.add<ResidualAdd>(node, {x, branch}, scale);
          }};
}

INSTANTIATE_TEST_SUITE_P(
    Layers, EveryLayer,
    testing::Values(single<Linear>("linear", std::int64_t{4}, true),
                    single<Linear>("linear_without_bias", std::int64_t{6}, false),
                    single<Linear>("linear_to_one", std::int64_t{1}, true),
                    single<BatchNorm>("batch_norm"),
                    single<BatchNorm>("batch_norm_without_parameters", BatchNormOptions{.affine = false}),
                    single<Scalar>("scalar"), single<Scalar>("scalar_shift", ScalarOptions{.scale = false, .shift = true}),
                    single<Scalar>("scalar_both", ScalarOptions{.shift = true}), residual("residual", 1, false), residual("residual_scaled", -0.7, false),
                    residual("residual_crossed", 0.5, true)),
    case_name);

std::vector<LayerCase> every_activation() {
  std::vector<LayerCase> cases;
  ops::All::for_each([&]<class Op>() { cases.push_back(single<Activation>(std::string(Op::name), Op::id)); });
  return cases;
}
INSTANTIATE_TEST_SUITE_P(Activations, EveryLayer, testing::ValuesIn(every_activation()), case_name);

TEST(SoftmaxCrossEntropy, GradientOfTheMeanLoss) {
  Graph g(DType::f64);
  const ValueId x = g.input("x", kInput), labels = g.input("labels", {{7}, DType::i32});
  g.add_loss<SoftmaxCrossEntropy>("loss", {x, labels});
  Network n(g, 2, {.retain = true, .input_gradients = {x}});
  EXPECT_EQ(check_gradients(n), 35);
}

TEST(SoftmaxCrossEntropy, AddsWhenTheLogitsAreReadTwice) {
  // The batch mean of one loss and the sum of another share the logits; both losses are of one row count.
  Graph g(DType::f64);
  const ValueId x = g.input("x", {{1, 5}, DType::f64}), labels = g.input("labels", {{1}, DType::i32});
  const ValueId z = g.add<Linear>("logits", {x}, 4);
  g.add_loss<SoftmaxCrossEntropy>("first", {z, labels});
  g.add_loss<SoftmaxCrossEntropy>("second", {z, labels});
  Network both(g, 2, {.retain = true, .input_gradients = {x}});
  both.executor->step();
  Graph h(DType::f64);
  const ValueId hx = h.input("x", {{1, 5}, DType::f64}), hl = h.input("labels", {{1}, DType::i32});
  h.add_loss<SoftmaxCrossEntropy>("first", {h.add<Linear>("logits", {hx}, 4), hl});
  Network one(h, 2, {.retain = true, .input_gradients = {hx}});
  one.executor->step();
  const auto twice = both.gradient("logits"), once = one.gradient("logits");
  ASSERT_EQ(twice.size(), 4u);
  for (std::size_t i = 0; i < 4; ++i) EXPECT_EQ(twice[i], 2 * once[i]);
  EXPECT_NE(once[0], 0);
}

class WholeNetwork : public testing::TestWithParam<std::string> {};

TEST_P(WholeNetwork, GradientsAreTheSlopesOfTheLoss) {
  Model m =
      build_model(parse_model(GetParam()), {.batch = 9, .features = 6, .classes = 3, .dtype = DType::f64});
  Network n(m.graph, 7, {.retain = true, .input_gradients = {m.x}});
  // Weights in [-1, 1] of width 5 saturate nothing and vanish nowhere at depth 5. A bias before batch norm,
  // and a weight far from the loss, may have small gradients: the floor is lower than for single layers.
  EXPECT_GT(check_gradients(n, {.floor = 0, .per_tensor = 12}), 30);
  double largest = 0;
  for (const ParameterSpec& p : m.graph.parameters())
    for (const double g : n.parameter_gradient(p.name)) largest = std::fmax(largest, std::fabs(g));
  EXPECT_GT(largest, 0.05) << "gradients too small to prove anything";
}

std::vector<std::string> small_networks() {
  std::vector<std::string> specs = {"mlp:depth=1,width=5", "mlp:depth=2,width=5",
                                    "mlp:depth=5,width=5,bias=off",
                                    "mlp:depth=5,width=5,act=tanh,skip=on,branch_scale=1/sqrt(L)",
                                    "mlp:depth=5,width=5,act=tanh,skip=on,branch_scale=skipinit",
                                    "mlp:depth=6,width=5,skip=on,branch=2,norm=bn,branch_scale=rezero",
                                    "mlp:depth=6,width=5,skip=on,branch=2,init=fixup"};
  for (const char* act : {"leaky_relu", "gelu", "silu", "softplus"})
    specs.push_back(fmt::format("mlp:depth=6,width=5,act={},norm=bn,skip=on,branch=2", act));
  for (const char* act : {"relu", "tanh", "sigmoid", "linear"})
    for (const char* norm : {"none", "bn"}) {
      specs.push_back(fmt::format("mlp:depth=5,width=5,act={},norm={}", act, norm));
      specs.push_back(fmt::format("mlp:depth=5,width=5,act={},norm={},skip=on", act, norm));
      specs.push_back(
          fmt::format("mlp:depth=6,width=5,act={},norm={},skip=on,branch=2,branch_scale=0.5", act, norm));
    }
  return specs;
}

INSTANTIATE_TEST_SUITE_P(Networks, WholeNetwork, testing::ValuesIn(small_networks()),
                         [](const auto& network) {
                           std::string name = network.param.substr(4);
                           std::ranges::replace_if(
                               name, [](char c) { return !std::isalnum(static_cast<unsigned char>(c)); },
                               '_');
                           return name;
                         });

// One value read by three layers of different kinds, whose results meet again.
TEST(FanOut, ThreeReadersOfOneValue) {
  Graph g(DType::f64);
  const ValueId x = g.input("x", {{8, 4}, DType::f64}), labels = g.input("labels", {{8}, DType::i32});
  const ValueId shared = g.add<Linear>("shared", {x}, 5);
  const ValueId a = g.add<Activation>("a", {shared}, PointwiseId::tanh);
  const ValueId b = g.add<Linear>("b", {shared}, 5);
  const ValueId c = g.add<BatchNorm>("c", {shared});
  const ValueId ab = g.add<ResidualAdd>("ab", {a, b});
  const ValueId abc = g.add<ResidualAdd>("abc", {ab, c}, -0.5);
  g.add_loss<SoftmaxCrossEntropy>("loss", {g.add<Linear>("head", {abc}, 3), labels});
  for (const bool retain : {true, false}) {
    Network n(g, 11, {.retain = retain, .input_gradients = {x}});
    EXPECT_GT(check_gradients(n, {.floor = 1e-3}), 60);
  }
}

// The check itself must notice layers that are wrong by little.
struct WrongTanh final : Layer {
  double power = 2;  // of y in the derivative; 2 is right
  bool always_overwrites = false;
  std::string_view type() const noexcept override { return "wrong_tanh"; }
  Inference infer(std::span<const TensorSpec> x) const override {
    Inference r;
    r.outputs = {x[0]};
    r.backward_reads_output = {0};
    return r;
  }
  void forward(ForwardContext& c) const override { toys::InPlaceTanh().forward(c); }
  void backward(BackwardContext& c) const override {
    for (std::size_t i = 0; i < c.dx[0].elements(); ++i) {
      const double slope = 1 - std::pow(std::fabs(c.y[0].as<double>()[i]), power),
                   g = slope * c.dy[0].as<double>()[i];
      double& dx = c.dx[0].as<double>()[i];
      dx = c.modes[0] == GradMode::accumulate && !always_overwrites ? dx + g : g;
    }
  }
};

int failures_with(double power, bool always_overwrites) {
  testing::TestPartResultArray failures;
  {
    const testing::ScopedFakeTestPartResultReporter catcher(
        testing::ScopedFakeTestPartResultReporter::INTERCEPT_ONLY_CURRENT_THREAD, &failures);
    Graph g(DType::f64);
    const ValueId x = g.input("x", kInput);
    for (const char* name : {"a", "b"}) {
      auto layer = std::make_shared<WrongTanh>();
      layer->power = power;
      layer->always_overwrites = always_overwrites;
      add_cotangent(g, std::string("loss_") + name, g.add(name, layer, {x}), 3);
    }
    Network n(g, 3, {.retain = true, .input_gradients = {x}});
    check_gradients(n);
  }
  return failures.size();
}

TEST(GradientCheck, NoticesWrongLayers) {
  EXPECT_EQ(failures_with(2, false), 0);
  EXPECT_GT(failures_with(2.001, false), 20) << "a derivative wrong by a thousandth";
  EXPECT_GT(failures_with(2, true), 20) << "a gradient that overwrites where it should add";
}

}  // namespace
}  // namespace gradflow
