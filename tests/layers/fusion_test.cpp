// Fused layers: the same bits as the layers they replace, the same parameters and states, fewer launches.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cctype>
#include <optional>

#include "engine/expect_error.h"
#include "gradflow/engine/device.h"
#include "gradflow/engine/executor.h"
#include "gradflow/engine/random.h"
#include "gradflow/layers/activation.h"
#include "gradflow/layers/batch_norm.h"
#include "gradflow/layers/models.h"
#include "gradflow/layers/residual_add.h"
#include "layers/harness.h"

namespace gradflow {
namespace {

Model small(const std::string& text, DType dtype = DType::f32) {
  return build_model(parse_model(text),
                     {.batch = 6, .features = 9 * 8 * 2, .classes = 4, .dtype = dtype, .image = {9, 8, 2}});
}

// Some training steps; what they leave in every parameter and state, the losses, and how many launches a step
// had.
struct Trained {
  std::vector<std::vector<std::byte>> memory;
  std::vector<double> losses;
  std::size_t launches = 0, arena_bytes = 0;
};

// "bf16 resnet:...": a network of that type.
Trained train(const std::string& text, bool fuse, bool probes) {
  const bool bf16 = text.starts_with("bf16 ");
  const Model m = small(text.substr(bf16 ? 5 : 0), bf16 ? DType::bf16 : DType::f32);
  const std::unique_ptr<Backend> device = open_device("cpu", 2);
  ParameterStore store(*device, m.graph);
  store.initialize(m.spec.initializer(), 5);
  Optimizer optimizer(store, {.learning_rate = 0.05, .momentum = 0.9, .weight_decay = 1e-3});
  ExecutorOptions options{.fuse = fuse, .fuse_as_device = true};
  if (probes) options.probes = all_scalar_probes(m.graph, true, true);
  Executor executor(m.graph, store, &optimizer, options);
  const Tensor x = executor.input("x"), labels = executor.input("labels");
  device->random_fill({.dtype = x.dtype(),
                       .n = x.elements(),
                       .x = x.data,
                       .distribution = kernels::Distribution::normal,
                       .seed = 3,
                       .purpose = 1});
  for (std::size_t i = 0; i < labels.elements(); ++i)
    labels.as<std::int32_t>()[i] = static_cast<std::int32_t>(i % 4);
  Trained run{.memory = {},
              .losses = {},
              .launches = executor.plan().launches.size(),
              .arena_bytes = executor.plan().arena_bytes};
  for (int step = 1; step <= 3; ++step) {
    optimizer.set_step(step);
    executor.step();
    run.losses.push_back(executor.take_loss().loss_sum);
  }
  const auto keep = [&](const Tensor& t) {
    const auto* bytes = static_cast<const std::byte*>(t.data);
    run.memory.emplace_back(bytes, bytes + t.bytes());
  };
  for (const Tensor& t : store.parameters()) keep(t);
  for (const Tensor& t : store.states()) keep(t);
  return run;
}

class FusedTraining : public testing::TestWithParam<std::string> {};

TEST_P(FusedTraining, HasTheBitsOfTheLayersItReplaces) {
  const Trained fused = train(GetParam(), true, false), apart = train(GetParam(), false, false);
  EXPECT_LT(fused.launches, apart.launches);
  EXPECT_EQ(fused.losses, apart.losses);
  EXPECT_EQ(fused.memory, apart.memory);
}

INSTANTIATE_TEST_SUITE_P(Networks, FusedTraining,
                         testing::Values("resnet:depth=8",
                                         "resnet:depth=8,shortcut=B,act=tanh,branch_scale=0.5",
                                         "resnet:depth=8,version=v2", "plain:depth=8,act=sigmoid",
                                         "mlp:depth=6,width=20,norm=bn,skip=on,branch=2", "bf16 resnet:depth=8",
                                         "bf16 resnet:depth=8,shortcut=B,act=tanh,branch_scale=0.5",
                                         "bf16 resnet:depth=8,version=v2,act=sigmoid",
                                         "bf16 mlp:depth=5,width=70,act=tanh", "bf16 resnet:depth=8,norm=none",
                                         "bf16 resnet:depth=8,norm=none,act=tanh",
                                         "mlp:depth=5,width=70,act=tanh", "plain:depth=8,norm=none",
                                         "resnet:depth=8,norm=none,branch_scale=skipinit",
                                         "resnet:depth=8,norm=none,act=sigmoid,shortcut=C,branch_scale=0.5"),
                         [](const auto& network) {
                           std::string name = network.param;
                           std::ranges::replace_if(
                               name, [](char c) { return !std::isalnum(static_cast<unsigned char>(c)); },
                               '_');
                           return name;
                         });

TEST(Fusion, ProbesKeepNothingApartAndChangeNoBit) {
  for (const char* text : {"resnet:depth=8", "bf16 resnet:depth=8,act=tanh"}) {
    const Trained measured = train(text, true, true), apart = train(text, false, true),
                  fused = train(text, true, false);
    EXPECT_LT(measured.launches, apart.launches);
    EXPECT_EQ(measured.memory, fused.memory) << text;
  }
}

// One step with every probe and every histogram.
struct Watched {
  std::vector<ProbeReading> readings;
  std::vector<std::vector<std::byte>> parameters;
  int own_launches = 0;
};

Watched watch(const std::string& text, bool fuse) {
  const bool bf16 = text.starts_with("bf16 ");
  const Model m = small(text.substr(bf16 ? 5 : 0), bf16 ? DType::bf16 : DType::f32);
  const std::unique_ptr<Backend> device = open_device("cpu", 2);
  ParameterStore store(*device, m.graph);
  store.initialize(m.spec.initializer(), 5);
  Optimizer optimizer(store, {.learning_rate = 0.05});
  ExecutorOptions options{.probes = all_scalar_probes(m.graph, true, true), .fuse = fuse, .fuse_as_device = true};
  for (ProbeRequest& r : options.probes) r.exponents = r.target != ProbeTarget::update;
  Executor executor(m.graph, store, &optimizer, options);
  const Tensor x = executor.input("x");
  device->random_fill({.dtype = x.dtype(), .n = x.elements(), .x = x.data, .distribution = kernels::Distribution::normal,
                       .seed = 3, .purpose = 1});
  optimizer.set_step(1);
  executor.step();
  Watched seen{.readings = executor.read_probes(), .parameters = {}, .own_launches = 0};
  for (const Tensor& t : store.parameters()) {
    const auto* bytes = static_cast<const std::byte*>(t.data);
    seen.parameters.emplace_back(bytes, bytes + t.bytes());
  }
  for (const Launch& l : executor.plan().launches) seen.own_launches += l.kind == LaunchKind::stats;
  return seen;
}

// The arrays have the same bits, so what is counted is the same; sums may be formed in another order, each within the
// 2^-19 of stats.h of the sum of magnitudes, which is at most sqrt(count * sum_squares).
TEST(Fusion, AValueInsideIsMeasuredAsIfItWereStored) {
  for (const char* text : {"mlp:depth=6,width=70,act=tanh", "mlp:depth=5,width=40", "bf16 mlp:depth=5,width=70,act=sigmoid",
                           "plain:depth=8,norm=none", "resnet:depth=8,norm=none,branch_scale=0.5,shortcut=B",
                           "bf16 resnet:depth=8,norm=none", "mlp:depth=6,width=20,skip=on,branch=2", "resnet:depth=8",
                           "resnet:depth=8,act=tanh,shortcut=B,branch_scale=0.5", "bf16 resnet:depth=8,act=sigmoid",
                           "bf16 resnet:depth=8,version=v2", "mlp:depth=6,width=20,norm=bn,skip=on,branch=2"}) {
    SCOPED_TRACE(text);
    const Watched fused = watch(text, true), apart = watch(text, false);
    EXPECT_EQ(fused.parameters, apart.parameters);
    EXPECT_LE(fused.own_launches, apart.own_launches);
    ASSERT_EQ(fused.readings.size(), apart.readings.size());
    for (std::size_t i = 0; i < fused.readings.size(); ++i) {
      SCOPED_TRACE(i);
      const Stats &a = fused.readings[i].stats, &b = apart.readings[i].stats;
      EXPECT_GT(a.count, 0u);
      EXPECT_EQ(a.count, b.count);
      EXPECT_EQ(a.zeros, b.zeros);
      EXPECT_EQ(a.denormals, b.denormals);
      EXPECT_EQ(a.nonfinite, b.nonfinite);
      EXPECT_EQ(a.saturated, b.saturated);
      EXPECT_EQ(a.max_abs_bits, b.max_abs_bits);
      EXPECT_LE(std::fabs(a.sum - b.sum), 0x1p-18 * std::sqrt(static_cast<double>(b.count) * b.sum_squares));
      EXPECT_LE(std::fabs(a.sum_squares - b.sum_squares), 0x1p-18 * b.sum_squares);
      EXPECT_EQ(fused.readings[i].exponents, apart.readings[i].exponents);
    }
  }
}

TEST(Fusion, ProbesOnWhatAFusedLayerMeasuresKeepNothingApart) {
  const std::string text = "mlp:depth=4,width=8,act=tanh";
  const Graph whole = small(text).graph, g = fused_for(whole, all_scalar_probes(whole, true, true), true);
  EXPECT_EQ(g.nodes().size(), whole.fused({}).nodes().size());
  const std::unique_ptr<Backend> device = open_device("cpu", 1);
  const Plan plan = make_plan(g, {.probes = all_scalar_probes(whole, true, false)}, *device);
  int inside = 0;
  for (const ProbePlace& p : plan.probe_places) {
    if (p.between == kNobody) continue;
    ++inside;
    EXPECT_TRUE(p.where == ProbePlace::Where::forward_between || p.where == ProbePlace::Where::backward_between);
    EXPECT_EQ(g.node(p.node).layer->type(), "linear+tanh");
  }
  EXPECT_EQ(inside, 6);  // three linear layers, value and gradient
}

TEST(Fusion, OnTheHostProbesKeepApartWhatCostsMoreTogether) {
  const Graph whole = small("resnet:depth=8").graph;
  const std::vector<ProbeRequest> probes = all_scalar_probes(whole, true, true);
  EXPECT_EQ(fused_for(whole, probes, false).nodes().size(), whole.fused({}).nodes().size());
  const Graph host = fused_for(whole, probes, true);
  EXPECT_FALSE(host.value(host.find_value("bn1")).fused_away);
  EXPECT_FALSE(host.value(host.find_value("layer1.0.add")).fused_away);
  EXPECT_EQ(fused_for(whole, {}, true).nodes().size(), whole.fused({}).nodes().size());
  const Graph mlp = small("mlp:depth=4,width=8").graph;
  const Graph fused = fused_for(mlp, all_scalar_probes(mlp, true, true), true);
  EXPECT_TRUE(fused.value(fused.find_value("block01.linear")).fused_away);
}

// What takes the tensor itself keeps it; asked of a graph without it, the plan says so.
TEST(Fusion, AProbeThatNeedsTheTensorKeepsIt) {
  const Graph whole = small("mlp:depth=4,width=8,act=tanh").graph;
  const ValueId z = whole.find_value("block01.linear");
  const std::unique_ptr<Backend> device = open_device("cpu", 1);
  const ProbeRequest stats{.target = ProbeTarget::value, .id = z};
  struct Asked {
    std::vector<ProbeRequest> probes;
    bool fuse_probes;
    const char* refusal;
  };
  for (const Asked& asked :
       {Asked{{{.target = ProbeTarget::value, .id = z, .alive = true}}, true, "it lies inside a fused layer"},
        Asked{{stats}, false, "it lies inside a fused layer"}, Asked{{stats, stats}, true, "is asked for twice"}}) {
    const Graph kept = fused_for(whole, asked.probes, true, asked.fuse_probes);
    EXPECT_FALSE(kept.value(z).fused_away);
    PlanOptions options{.probes = asked.probes, .fuse_probes = asked.fuse_probes};
    EXPECT_GT(make_plan(kept, options, *device).launches.size(), 0u);
    test::expect_error([&] { make_plan(whole.fused({}), options, *device); }, asked.refusal);
  }
  EXPECT_TRUE(fused_for(whole, std::vector{stats}, true).value(z).fused_away);
}

TEST(Fusion, WhatBecomesOne) {
  const Model m = small("resnet:depth=8");
  const Graph g = m.graph.fused({});
  std::vector<std::string> names;
  for (const Node& n : g.nodes()) names.push_back(n.name);
  EXPECT_EQ(names,
            (std::vector<std::string>{
                "conv1", "bn1+relu", "layer1.0.conv1", "layer1.0.bn1+relu1", "layer1.0.conv2",
                "layer1.0.bn2+add+relu2", "layer2.0.shortcut", "layer2.0.conv1", "layer2.0.bn1+relu1",
                "layer2.0.conv2", "layer2.0.bn2+add+relu2", "layer3.0.shortcut", "layer3.0.conv1",
                "layer3.0.bn1+relu1", "layer3.0.conv2", "layer3.0.bn2+add+relu2", "avgpool", "fc", "loss"}));
  EXPECT_EQ(g.node(g.find_node("layer1.0.bn2+add+relu2")).layer->type(), "batch_norm+add+relu");
  EXPECT_EQ(g.parameters().size(), m.graph.parameters().size());
  EXPECT_EQ(g.values().size(), m.graph.values().size());
  const ValueId between = g.find_value("layer1.0.add");
  EXPECT_TRUE(g.value(between).fused_away);
  EXPECT_FALSE(g.value(g.find_value("layer1.0.relu2")).fused_away);
  // A second reader, or somebody who wants to look: then it stays.
  const Graph kept = m.graph.fused(std::vector{between});
  EXPECT_FALSE(kept.value(between).fused_away);
  EXPECT_EQ(kept.node(kept.value(between).producer).name, "layer1.0.bn2+add");
}

// Without batch norm: bias and activation with the weight layer, an activation with the addition.
TEST(Fusion, WhatBecomesOneWithoutBatchNorm) {
  const Graph g = small("resnet:depth=8,norm=none").graph.fused({});
  std::vector<std::string> names;
  for (const Node& n : g.nodes()) names.push_back(n.name);
  EXPECT_EQ(names, (std::vector<std::string>{
                       "conv1+relu", "layer1.0.conv1+relu1", "layer1.0.conv2", "layer1.0.add+relu2",
                       "layer2.0.shortcut", "layer2.0.conv1+relu1", "layer2.0.conv2", "layer2.0.add+relu2",
                       "layer3.0.shortcut", "layer3.0.conv1+relu1", "layer3.0.conv2", "layer3.0.add+relu2", "avgpool",
                       "fc", "loss"}));
  EXPECT_EQ(g.node(g.find_node("conv1+relu")).layer->type(), "convolution+relu");
  EXPECT_EQ(g.node(g.find_node("layer1.0.add+relu2")).layer->type(), "residual_add+relu");
  // No bias, or an operation that needs its input again: nothing is gained.
  EXPECT_EQ(small("mlp:depth=4,width=8,bias=off").graph.fused({}).nodes().size(), 8u);
  EXPECT_EQ(small("mlp:depth=4,width=8,act=gelu").graph.fused({}).nodes().size(), 8u);
  EXPECT_EQ(small("mlp:depth=4,width=8,act=tanh").graph.fused({}).nodes().size(), 5u);
}

// In front of the activation lies no tensor any more, and no gradient: it takes the place of the one behind it.
TEST(Fusion, TheGradientInFrontOfAnActivationLiesOverTheOneBehindIt) {
  const Trained fused = train("mlp:depth=6,width=40", true, false), apart = train("mlp:depth=6,width=40", false, false);
  EXPECT_LE(fused.arena_bytes, apart.arena_bytes);
}

TEST(Fusion, WhatStaysApart) {
  Graph g;
  const ValueId x = g.input("x", {{4, 6}, DType::f32});
  const ValueId n = g.add<BatchNorm>("norm", {x});
  const ValueId both = g.add<ResidualAdd>("skip_is_input", {x, n});  // x twice into one layer
  const ValueId m = g.add<BatchNorm>("norm2", {both});
  const ValueId crossed = g.add<ResidualAdd>("norm_is_skip", {m, both});  // not the branch
  const ValueId k = g.add<BatchNorm>("norm3", {crossed});
  g.add<Activation>("act1", {k}, PointwiseId::relu);  // two readers
  g.add<Activation>("act2", {k}, PointwiseId::tanh);
  EXPECT_EQ(g.fused({}).nodes().size(), g.nodes().size());
}

TEST(Fusion, AProbeOnWhatIsGoneIsRefused) {
  const Model m = small("resnet:depth=8");
  const Graph g = m.graph.fused({});
  const std::unique_ptr<Backend> device = open_device("cpu", 1);
  PlanOptions options{.probes = {{.target = ProbeTarget::value, .id = g.find_value("bn1"), .alive = true}}};
  test::expect_error([&] { make_plan(g, options, *device); }, "it lies inside a fused layer");
}

// The split of a gradient into skip and branch works on the fused network as on the other.
TEST(Fusion, AResidualSplitIsTheSame) {
  for (const char* version : {"v1", "v2"}) {
    const Model m = small(fmt::format("resnet:depth=14,version={}", version));
    std::vector<GradientSplit> splits;
    for (const bool fuse : {false, true}) {
      const std::unique_ptr<Backend> device = open_device("cpu", 2);
      ParameterStore store(*device, m.graph);
      store.initialize(m.spec.initializer(), 5);
      ExecutorOptions options{.fuse = fuse, .fuse_as_device = true};
      for (const WeightLayer& layer : m.layers)
        if (layer.split)
          options.probes.push_back({.target = ProbeTarget::gradient, .id = *layer.split, .split = true});
      ASSERT_GE(options.probes.size(), 4u);
      Executor executor(m.graph, store, nullptr, options);
      const Tensor x = executor.input("x");
      RandomStream(3, "images").fill_normal(std::span(x.as<float>(), x.elements()), 0, 1);
      executor.step();
      for (const ProbeReading& r : executor.read_probes()) {
        EXPECT_GT(r.split.first.norm(), 0);
        EXPECT_GT(r.split.rest.norm(), 0);
        splits.push_back(r.split);
      }
    }
    for (std::size_t i = 0; i < splits.size() / 2; ++i) {
      EXPECT_EQ(splits[i].first.sum_squares, splits[i + splits.size() / 2].first.sum_squares);
      EXPECT_EQ(splits[i].dot, splits[i + splits.size() / 2].dot);
    }
  }
}

}  // namespace
}  // namespace gradflow
