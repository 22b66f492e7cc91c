// Networks whose gradients are known without any tolerance.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "gradflow/layers/activation.h"
#include "gradflow/layers/linear.h"
#include "gradflow/layers/models.h"
#include "gradflow/layers/residual_add.h"
#include "layers/harness.h"

namespace gradflow {
namespace {

using test::add_cotangent;
using test::Network;

bool same_bits(const std::vector<double>& a, const std::vector<double>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(double)) == 0;
}

// A chain of linear layers of one unit without biases: y = w_1 ... w_L x, so the gradient at layer l is the
// product of the weights behind it, and with weights that are powers of two (and signs) every product is
// exact.
TEST(ClosedForm, LinearChainMultipliesItsWeights) {
  constexpr int kDepth = 40;
  Graph g(DType::f64);
  const ValueId x = g.input("x", {{1, 1}, DType::f64});
  ValueId z = x;
  std::vector<double> weights;
  for (int l = 1; l <= kDepth; ++l) {
    z = g.add<Linear>("linear" + std::to_string(l), {z}, 1, false);
    weights.push_back(std::ldexp(l % 3 ? 1.0 : -1.0, (l * 7) % 11 - 6));
  }
  g.add_loss("loss", std::make_shared<toys::Cotangent>(std::vector<double>{1.5}), {z});
  Network n(g, 1, {.retain = true, .input_gradients = {x}});
  for (int l = 1; l <= kDepth; ++l)
    n.set_parameter("linear" + std::to_string(l) + ".weight", {weights[static_cast<std::size_t>(l - 1)]});
  n.executor->step();
  double expected = 1.5;
  for (int l = kDepth; l >= 1; --l) {
    EXPECT_EQ(n.gradient("linear" + std::to_string(l)), std::vector<double>{expected}) << "layer " << l;
    expected *= weights[static_cast<std::size_t>(l - 1)];
  }
  EXPECT_EQ(n.gradient("x"), std::vector<double>{expected});
  EXPECT_LT(std::fabs(expected), 1e-6) << "this chain was meant to lose its gradient";
}

// The same with matrices: scaled permutations keep every norm up to the factor, exactly.
TEST(ClosedForm, ScaledPermutationsScaleTheNorm) {
  constexpr std::size_t kWidth = 6;
  Graph g(DType::f64);
  const ValueId x = g.input("x", {{4, kWidth}, DType::f64});
  ValueId z = x;
  for (int l = 1; l <= 12; ++l)
    z = g.add<Linear>("linear" + std::to_string(l), {z}, static_cast<std::int64_t>(kWidth), false);
  add_cotangent(g, "loss", z, 1);
  Network n(g, 1, {.retain = true, .input_gradients = {x}});
  for (int l = 1; l <= 12; ++l) {
    std::vector<double> w(kWidth * kWidth);
    for (std::size_t row = 0; row < kWidth; ++row)
      w[row * kWidth + (row * 5 + static_cast<std::size_t>(l)) % kWidth] = row % 2 ? 0.25 : -0.25;
    n.set_parameter("linear" + std::to_string(l) + ".weight", w);
  }
  n.executor->step();
  const auto norm_squared = [](std::vector<double> v) {
    for (double& e : v) e = std::fabs(e);
    std::ranges::sort(v);  // a permutation changes the order of summation only
    double sum = 0;
    for (const double e : v) sum += e * e;
    return sum;
  };
  for (int l = 12; l > 1; --l)
    EXPECT_EQ(norm_squared(n.gradient("linear" + std::to_string(l - 1))),
              norm_squared(n.gradient("linear" + std::to_string(l))) / 16);
}

// With branches that are multiplied by 0 the residual stream carries the gradient unchanged, bit for bit.
TEST(ClosedForm, ZeroBranchesPassTheGradientUnchanged) {
  for (const char* norm : {"none", "bn"})
    for (const char* branch : {"1", "2"}) {
      const Model m = build_model(
          parse_model(fmt::format("mlp:depth=22,width=8,act=tanh,skip=on,branch={},branch_scale=0,norm={}",
                                  branch, norm)),
          {.batch = 6, .features = 5, .classes = 4, .dtype = DType::f64});
      Network n(m.graph);
      n.executor->step();
      const auto last = n.gradient(m.graph.value(m.layers[m.layers.size() - 2].z).name);
      int streams = 0;
      for (const WeightLayer& layer : m.layers) {
        if (!layer.block_input) continue;
        EXPECT_TRUE(same_bits(n.gradient(m.graph.value(layer.z).name), last)) << layer.name;
        ++streams;
      }
      EXPECT_EQ(streams, *branch == '1' ? 20 : 10);
      double largest = 0;
      for (const double e : last) largest = std::fmax(largest, std::fabs(e));
      EXPECT_GT(largest, 1e-3);
    }
}

// x -> add(x, branch(x)) -> loss, and what each gate does to it.
struct Block {
  Network n;
  static Graph graph() {
    Graph g(DType::f64);
    const ValueId x = g.input("x", {{3, 4}, DType::f64});
    const ValueId branch = g.add<Linear>("branch", {x}, 4);
    add_cotangent(g, "loss", g.add<ResidualAdd>("add", {x, branch}, 0.5), 9);
    return g;
  }
  Block() : n(graph(), 2, {.retain = true, .input_gradients = {0}}) {}
  void run(const kernels::Gates& gates) {
    const Tensor& state = n.parameters.states()[0];
    n.device->copy_in(state.data, &gates, sizeof gates);
    n.executor->step();
  }
};

TEST(Gates, EachCutsOnePathInOneDirection) {
  Block b;
  b.run({});
  const auto y = b.n.value("add"), dx = b.n.gradient("x"), dy = b.n.gradient("add"),
             branch = b.n.value("branch"), x = b.n.value("x");
  const auto dw = b.n.parameter_gradient("branch.weight");

  b.run({.forward_branch = 0});
  EXPECT_EQ(b.n.value("add"), x) << "only the skip is left";
  EXPECT_EQ(b.n.gradient("x"), dx) << "backward is untouched";
  b.run({.forward_skip = 0});
  for (std::size_t i = 0; i < y.size(); ++i) EXPECT_EQ(b.n.value("add")[i], 0.5 * branch[i]);
  EXPECT_EQ(b.n.gradient("x"), dx);
  b.run({.backward_branch = 0});
  EXPECT_EQ(b.n.value("add"), y);
  EXPECT_EQ(b.n.gradient("x"), dy) << "the gradient passes by the skip alone, unchanged";
  for (const double e : b.n.parameter_gradient("branch.weight")) EXPECT_EQ(e, 0);
  const auto by_skip = b.n.gradient("x");
  b.run({.backward_skip = 0});
  EXPECT_EQ(b.n.value("add"), y);
  EXPECT_EQ(b.n.parameter_gradient("branch.weight"), dw);
  const auto by_branch = b.n.gradient("x");
  for (std::size_t i = 0; i < dx.size(); ++i) EXPECT_NEAR(by_skip[i] + by_branch[i], dx[i], 1e-15);
  b.run({.backward_skip = 0, .backward_branch = 0});
  for (const double e : b.n.gradient("x")) EXPECT_EQ(e, 0);
  b.run({});
  EXPECT_EQ(b.n.gradient("x"), dx) << "gates leave nothing behind";
}

// The split of a residual gradient into what came by the skip and what came by the branch.
TEST(SplitProbe, SkipAndBranchAddUp) {
  Graph g = Block::graph();
  Network n(g, 2,
            {.retain = true,
             .input_gradients = {0},
             .probes = {{.target = ProbeTarget::gradient, .id = 0, .split = true}}});
  n.executor->step();
  const ProbeReading r = n.executor->read_probes()[0];
  const auto dx = n.gradient("x"), dy = n.gradient("add");
  double skip = 0, branch = 0, dot = 0;
  for (std::size_t i = 0; i < dx.size(); ++i) {
    const double rest = dx[i] - dy[i];
    skip += dy[i] * dy[i], branch += rest * rest, dot += dy[i] * rest;
  }
  EXPECT_NEAR(r.split.first.sum_squares, skip, 1e-14 * skip);
  EXPECT_NEAR(r.split.rest.sum_squares, branch, 1e-12 * branch);
  EXPECT_NEAR(r.split.dot, dot, 1e-12 * std::sqrt(skip * branch));
  EXPECT_NEAR(r.split.cosine(), dot / std::sqrt(skip * branch), 1e-12);
  EXPECT_GT(branch, 0.01);
}

}  // namespace
}  // namespace gradflow
