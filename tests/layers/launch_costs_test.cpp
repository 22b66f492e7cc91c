// A plan counts the gradients it makes, not those a layer could make.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "gradflow/engine/device.h"
#include "gradflow/engine/plan.h"
#include "gradflow/layers/models.h"

namespace gradflow {
namespace {

Model build_for_costs(const std::string& text) {
  return build_model(parse_model(text), {.batch = 4, .features = 8 * 8 * 3, .classes = 10, .image = {8, 8, 3}});
}

Cost backward_cost(const Graph& graph, const Plan& plan, const std::string& node) {
  for (const Launch& l : plan.launches)
    if (l.kind == LaunchKind::backward && graph.node(l.node).name == node) return l.cost;
  ADD_FAILURE() << "no backward pass of " << node;
  return {};
}

// With a gradient of the input asked for, the first layer makes two products, otherwise one: as much as forward.
TEST(LaunchCosts, TheFirstLayersBackwardIsOneProduct) {
  const std::unique_ptr<Backend> device = open_device("cpu", 1);
  struct Case {
    const char *text, *first;
    double x, y, weights;  // elements
  };
  for (const Case& c : {Case{"mlp:depth=4,width=16,bias=off", "stem.linear", 4 * 192, 4 * 16, 16 * 192},
                        Case{"resnet:depth=8", "conv1", 4 * 192, 4 * 64 * 16, 16 * 27}}) {
    SCOPED_TRACE(c.text);
    const Model m = build_for_costs(c.text);
    const Plan without = make_plan(m.graph, {}, *device);
    const Plan with = make_plan(m.graph, {.input_gradients = {m.x}}, *device);
    const Cost forward = m.graph.nodes().front().inference.forward;
    ASSERT_EQ(m.graph.nodes().front().name, c.first);
    const Cost one = backward_cost(m.graph, without, c.first), two = backward_cost(m.graph, with, c.first);
    EXPECT_GT(forward.flops, 0);
    EXPECT_EQ(one.flops, forward.flops);
    EXPECT_EQ(two.flops, 2 * forward.flops);
    EXPECT_EQ(one.bytes, 4 * (c.x + c.y + c.weights));  // x and dy read, dw written
    EXPECT_EQ(two.bytes - one.bytes, 4 * (c.x + c.y + c.weights));  // dy and w read, dx written
    // Every other layer costs the same in both.
    ASSERT_EQ(with.launches.size(), without.launches.size());
    for (std::size_t i = 0; i < with.launches.size(); ++i) {
      const Launch &a = with.launches[i], &b = without.launches[i];
      if (a.kind == LaunchKind::backward && m.graph.node(a.node).name == c.first) continue;
      EXPECT_EQ(a.cost.flops, b.cost.flops) << i;
      EXPECT_EQ(a.cost.bytes, b.cost.bytes) << i;
    }
  }
}

// No layer may name more than its whole backward pass, whichever of its gradients a plan leaves out.
TEST(LaunchCosts, WhatIsLeftIsNeverNegative) {
  for (const char* text : {"mlp:depth=6,width=16,skip=on,norm=bn", "mlp:depth=6,width=16,skip=on,branch=2,init=fixup",
                           "resnet:depth=8,shortcut=B", "resnet:depth=8,norm=none,branch_scale=skipinit"}) {
    const Graph whole = build_for_costs(text).graph;
    for (const Graph& graph : {whole, whole.fused({})})
      for (const Node& node : graph.nodes()) {
        Cost rest = node.inference.backward;
        EXPECT_LE(node.inference.dx_costs.size(), node.inputs.size()) << node.name;
        for (const Cost& c : node.inference.dx_costs) rest.bytes -= c.bytes, rest.flops -= c.flops;
        EXPECT_GE(rest.bytes, 0) << node.name;
        EXPECT_GE(rest.flops, 0) << node.name;
      }
  }
}

}  // namespace
}  // namespace gradflow
