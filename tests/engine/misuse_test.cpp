// What happens when graph, plan and executor are used wrongly: one clear line each.
#include <gtest/gtest.h>

#include "engine/expect_error.h"
#include "engine/toy_layers.h"
#include "gradflow/engine/device.h"
#include "gradflow/engine/executor.h"
#include "gradflow/engine/graph.h"

namespace gradflow {
namespace {

using test::expect_error;
using toys::Blend, toys::Cotangent, toys::Fork, toys::InPlaceTanh, toys::ScaledSine;

const TensorSpec kFour{{4}, DType::f64};
const std::vector<double> kOnes(4, 1.0);

// in -> sine -> tanh -> loss
Graph small_graph() {
  Graph g(DType::f64);
  const ValueId in = g.input("in", kFour);
  const ValueId a = g.add<ScaledSine>("sine", {in});
  const ValueId b = g.add<InPlaceTanh>("tanh", {a});
  g.add_loss("loss", std::make_shared<Cotangent>(kOnes), {b});
  return g;
}

class Misuse : public testing::Test {
 protected:
  std::unique_ptr<Backend> device_ = open_device("cpu", 1);
  Plan plan(const Graph& g, const PlanOptions& o = {}) { return make_plan(g, o, *device_); }
};

struct Refusing final : Layer {
  std::string_view type() const noexcept override { return "refusing"; }
  Inference infer(std::span<const TensorSpec>) const override { throw UserError("does not like its input"); }
  void forward(ForwardContext&) const override {}
  void backward(BackwardContext&) const override {}
};

// Its shapes are right, but the device has nothing for them.
struct Unprepared final : Layer {
  std::string_view type() const noexcept override { return "unprepared"; }
  Inference infer(std::span<const TensorSpec> x) const override {
    Inference r;
    r.outputs = {x[0]};
    return r;
  }
  std::unique_ptr<Prepared> prepare(std::span<const TensorSpec>, Backend&) const override {
    throw UserError("more than the library can count");
  }
  void forward(ForwardContext&) const override {}
  void backward(BackwardContext&) const override {}
};

TEST_F(Misuse, WhatADeviceCannotPrepareIsSaidWithItsLayer) {
  Graph g(DType::f64);
  const ValueId a = g.add<Unprepared>("middle", {g.input("in", kFour)});
  g.add_loss("loss", std::make_shared<Cotangent>(kOnes), {a});
  expect_error([&] { plan(g); }, "layer 'middle' (unprepared): more than the library can count");
}

TEST_F(Misuse, NamesOfAGraph) {
  Graph g(DType::f64);
  const ValueId in = g.input("in", kFour);
  expect_error([&] { g.input("in", kFour); }, "already has a 'in'");
  expect_error([&] { g.add<InPlaceTanh>("in", {in}); }, "names are unique");
  expect_error([&] { g.add<InPlaceTanh>("", {in}); }, "no name");
  expect_error([&] { g.add<Refusing>("middle", {in}); },
               "layer 'middle' (refusing): does not like its input");
  g.add<InPlaceTanh>("middle", {in});  // the failed attempt left nothing behind
  EXPECT_EQ(g.nodes().size(), 1u);
  expect_error([&] { (void)g.find_value("midle"); }, "nearest is 'middle'");
  expect_error([&] { (void)g.find_node("midle"); }, "no layer named 'midle'");
  expect_error([&] { (void)g.find_parameter("w"); }, "no parameter named 'w' in the graph");
  test::expect_error([&] { Shape({std::int64_t{1} << 40, 1 << 20}); }, "a shape [1099511627776, 1048576]: more than");
  EXPECT_EQ(Shape({std::int64_t{1} << 40, 0}).elements(), 0u);
}

TEST_F(Misuse, InputsOfALayer) {
  Graph g(DType::f64);
  const ValueId in = g.input("in", kFour);
  expect_error([&] { g.add<InPlaceTanh>("t", {in + 1}); }, "'t': input 1 is not a value of this graph");
  expect_error([&] { g.add<InPlaceTanh>("t", {kNobody}); }, "is not a value of this graph");
  expect_error<InternalError>([&] { g.add<Fork>("fork", {in}); }, "2 outputs, 1 expected");
  expect_error<InternalError>([&] { g.add_loss("l", std::make_shared<InPlaceTanh>(), {in}); }, "has outputs");
}

TEST_F(Misuse, PlansThatCannotTrain) {
  Graph no_loss(DType::f64);
  const ValueId in = no_loss.input("in", kFour);
  no_loss.add<InPlaceTanh>("tanh", {in});
  expect_error([&] { plan(no_loss); }, "has no loss");
  EXPECT_NO_THROW(plan(no_loss, {.training = false}));

  Graph dangling(DType::f64);
  const ValueId x = dangling.input("in", kFour);
  dangling.add<ScaledSine>("side", {x});
  dangling.add_loss("loss", std::make_shared<Cotangent>(kOnes), {dangling.add<ScaledSine>("main", {x})});
  expect_error([&] { plan(dangling); }, "parameters of 'side' do not reach a loss");

  Graph twice(DType::f64);
  const ValueId y = twice.add<ScaledSine>("sine", {twice.input("in", kFour)});
  twice.add_loss("loss", std::make_shared<Cotangent>(kOnes), {twice.add<Blend>("both", {y, y})});
  expect_error([&] { plan(twice); }, "'both' reads 'sine' twice");

  const Graph g = small_graph();
  expect_error([&] { plan(g, {.input_gradients = {g.find_value("sine")}}); },
               "'sine' is not an input of the graph");
}

TEST_F(Misuse, ProbesThatCannotRun) {
  const Graph g = small_graph();
  const ValueId in = g.find_value("in"), sine = g.find_value("sine");
  const auto refused = [&](ProbeRequest r, const std::string& why, PlanOptions o = {}) {
    o.probes = {r};
    expect_error([&] { plan(g, o); }, why);
  };
  refused({.target = ProbeTarget::value, .id = 99}, "the graph has 0..");
  refused({.target = ProbeTarget::value, .id = -1}, "the graph has 0..");
  refused({.target = ProbeTarget::parameter, .id = 1}, "the graph has 0..0");
  refused({.target = ProbeTarget::gradient, .id = in}, "has no gradient");
  refused({.target = ProbeTarget::gradient, .id = sine}, "has no gradient", {.training = false});
  refused({.target = ProbeTarget::parameter_gradient, .id = 0}, "forward only", {.training = false});
  refused({.target = ProbeTarget::update, .id = 0}, "no optimizer");
  refused({.target = ProbeTarget::update, .id = 0, .exponents = true}, "scalars only",
          {.update = UpdatePlacement::immediate});
  refused({.target = ProbeTarget::gradient, .id = sine, .alive = true}, "only a value");
  refused({.target = ProbeTarget::gradient, .id = sine, .split = true}, "several consumers");

  Graph labeled(DType::f64);
  labeled.input("in", kFour);
  const ValueId labels = labeled.input("labels", {{4}, DType::i32});
  expect_error(
      [&] { plan(labeled, {.training = false, .probes = {{.target = ProbeTarget::value, .id = labels}}}); },
      "no floating-point numbers");
}

TEST_F(Misuse, AsksForTheSameTwice) {
  const Graph g = small_graph();
  ParameterStore parameters(*device_, g);
  parameters.initialize({}, 1);
  const ValueId tanh = g.find_value("tanh");
  Optimizer sgd(parameters, {.learning_rate = 0.1});
  ExecutorOptions options;
  for (int i = 0; i < 2; ++i) {
    options.probes.push_back({.target = ProbeTarget::value, .id = tanh});
    options.probes.push_back({.target = ProbeTarget::gradient, .id = tanh});
    options.probes.push_back({.target = ProbeTarget::parameter, .id = 0});
    options.probes.push_back({.target = ProbeTarget::parameter_gradient, .id = 0});
  }
  Executor e(g, parameters, &sgd, options);
  e.step();
  const auto readings = e.read_probes();
  for (std::size_t i = 0; i < 4; ++i) {
    EXPECT_EQ(readings[i].stats.count, 4u) << "request " << i;
    EXPECT_EQ(readings[i + 4].stats.count, 4u)
        << "the second request of kind " << i << " is as good as the first";
    EXPECT_EQ(readings[i].stats.sum_squares, readings[i + 4].stats.sum_squares);
  }
  options.probes.assign(2, {.target = ProbeTarget::update, .id = 0});
  expect_error([&] { Executor(g, parameters, &sgd, options); }, "asked for twice");
}

TEST_F(Misuse, ExecutorsOfOtherNetworks) {
  const Graph g = small_graph();
  ParameterStore parameters(*device_, g), others(*device_, g);
  Optimizer of_others(others, {.learning_rate = 0.1});
  expect_error([&] { Executor(g, parameters, &of_others); }, "made for another parameter store");
  expect_error([&] { Executor(g, parameters, nullptr, {.history = 0}); }, "at least 1");

  Graph renamed(DType::f64);
  const ValueId in = renamed.input("in", kFour);
  renamed.add_loss("loss", std::make_shared<Cotangent>(kOnes), {renamed.add<ScaledSine>("cosine", {in})});
  expect_error([&] { Executor(renamed, parameters); }, "'sine.w' [4] here, 'cosine.w' [4] there");
  Graph none(DType::f64);
  none.add<InPlaceTanh>("tanh", {none.input("in", kFour)});
  expect_error([&] { Executor(none, parameters, nullptr, {.training = false}); },
               "1 parameters and 0 states here, 0 and 0 there");
  Graph narrow(DType::f32);
  expect_error([&] { Executor(narrow, parameters, nullptr, {.training = false}); }, "f64 here, f32 there");
}

TEST_F(Misuse, CallsInTheWrongOrder) {
  const Graph g = small_graph();
  ParameterStore parameters(*device_, g);
  Executor e(g, parameters);
  expect_error([&] { (void)e.input("tanh"); }, "'tanh' is computed, not an input");
  expect_error([&] { (void)e.input("inn"); }, "nearest is 'in'");
  expect_error<InternalError>([&] { e.backward(); }, "without a forward()");
  e.forward();
  e.backward();
  expect_error<InternalError>([&] { e.backward(); }, "without a forward()");
  Executor evaluation(g, parameters, nullptr, {.training = false});
  expect_error<InternalError>([&] { evaluation.step(); }, "forward-only");
  expect_error<InternalError>([&] { evaluation.backward(); }, "forward-only");
}

TEST_F(Misuse, OptimizerSettings) {
  const Graph g = small_graph();
  ParameterStore parameters(*device_, g);
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const auto refused = [&](OptimizerConfig c, const std::string& why) {
    expect_error([&] { Optimizer(parameters, c); }, why);
  };
  refused({.learning_rate = -0.1}, "learning rate -0.1");
  refused({.learning_rate = nan}, "learning rate nan");
  refused({.momentum = 1}, "momentum 1");
  refused({.momentum = nan}, "momentum nan");
  refused({.weight_decay = -1}, "weight decay -1");
  refused({.kind = kernels::OptimizerKind::nesterov}, "above 0 for nesterov");
  refused({.kind = kernels::OptimizerKind::adam, .beta1 = 1}, "beta1 1");
  refused({.kind = kernels::OptimizerKind::adam, .beta2 = -0.5}, "beta2 -0.5");
  refused({.kind = kernels::OptimizerKind::adam, .epsilon = 0}, "epsilon 0");
  // What only f64 can tell from 1 or 0.
  refused({.momentum = 1 - 1e-12}, "momentum 0.999999999999");
  refused({.kind = kernels::OptimizerKind::adam, .beta2 = 1 - 1e-9}, "beta2 0.999999999");
  refused({.kind = kernels::OptimizerKind::adam, .epsilon = 1e-60}, "epsilon 1e-60");
}

TEST_F(Misuse, DevicesThatAreNotThere) {
  expect_error([] { open_device("gpu"); }, "devices are auto, cpu, cuda and cuda:N");
  expect_error([] { open_device("cuda:x"); }, "unknown device");
  expect_error([] { open_device("cuda:-1"); }, "unknown device");
  expect_error([] { open_device("cpu", -1); }, "0 means all cores");
  std::string reason;
  if (kernels::cuda_device_count(&reason) == 0) {
    EXPECT_FALSE(reason.empty());
    expect_error([] { open_device("cuda"); }, "no CUDA device: " + reason);
  }
}

}  // namespace
}  // namespace gradflow
