// Learned branch scalars and Fixup: what is built, what it starts from, and what that means for signals.
#include <gtest/gtest.h>

#include <cmath>
#include <set>
#include <string>
#include <vector>

#include "gradflow/engine/device.h"
#include "gradflow/engine/executor.h"
#include "gradflow/engine/random.h"
#include "gradflow/layers/models.h"

namespace gradflow {
namespace {

Model build_for_scales(const std::string& text, std::int64_t classes = 10) {
  return build_model(parse_model(text),
                     {.batch = 4, .features = 8 * 8 * 3, .classes = classes, .image = {8, 8, 3}});
}

std::vector<float> initial_values(const Model& m, const std::string& parameter) {
  const std::unique_ptr<Backend> device = open_device("cpu", 1);
  ParameterStore store(*device, m.graph);
  store.initialize(m.spec.initializer(), 3);
  const Tensor& t = store.parameters()[static_cast<std::size_t>(m.graph.find_parameter(parameter))];
  return {t.as<float>(), t.as<float>() + t.elements()};
}

double mean_square_of(const std::vector<float>& w) {
  double sum = 0;
  for (const float v : w) sum += static_cast<double>(v) * static_cast<double>(v);
  return sum / static_cast<double>(w.size());
}

std::vector<std::string> scalar_names(const Model& m) {
  std::vector<std::string> names;
  for (const ParameterSpec& p : m.graph.parameters())
    if (p.shape == Shape{1}) {
      EXPECT_FALSE(p.decay) << p.name;
      names.push_back(p.name);
    }
  return names;
}

// One number a block, without decay, zero at the start; everything else is the network without them, bit for bit.
TEST(BranchScales, ALearnedScaleIsOneNumberABlock) {
  for (const char* scale : {"skipinit", "rezero"}) {
    const std::string text = "resnet:depth=20,norm=none";
    const Model with = build_for_scales(text + ",branch_scale=" + scale), without = build_for_scales(text);
    EXPECT_EQ(with.graph.parameter_count(), without.graph.parameter_count() + 9);
    const std::vector<std::string> names = scalar_names(with);
    ASSERT_EQ(names.size(), 9u);
    EXPECT_EQ(names.front(), "layer1.0.branch.scale");
    EXPECT_EQ(names.back(), "layer3.2.branch.scale");
    EXPECT_EQ(initial_values(with, names.front()), std::vector<float>{0});
    EXPECT_EQ(initial_values(with, "layer2.1.conv2.weight"), initial_values(without, "layer2.1.conv2.weight"));
  }
  EXPECT_EQ(scalar_names(build_for_scales("mlp:depth=8,width=6,skip=on,branch=2,branch_scale=rezero,norm=bn")),
            (std::vector<std::string>{"block01.branch.scale", "block02.branch.scale", "block03.branch.scale"}));
  EXPECT_EQ(scalar_names(build_for_scales("resnet50:norm=none,branch_scale=skipinit")).size(), 16u);
  EXPECT_EQ(build_for_scales("resnet50:branch_scale=0.5", 1000).graph.parameter_count(), 25557032u);  // a constant is no parameter
}

// Every scalar of the paper's basic block, bias vectors only at the end, and the initial scales.
TEST(BranchScales, FixupIsThePapers) {
  const Model m = build_for_scales("resnet:depth=20,norm=none,init=fixup");
  std::set<std::string> names;
  for (const std::string& name : scalar_names(m)) names.insert(name);
  // A multiplier and four biases a block, one bias behind the stem and one in front of the classifier.
  EXPECT_EQ(names.size(), 9u * 5 + 2);
  for (const char* name : {"bias1.shift", "layer2.0.bias1a.shift", "layer2.0.bias1b.shift", "layer2.0.bias2a.shift",
                           "layer2.0.branch.scale", "layer2.0.branch.shift", "bias2.shift"})
    EXPECT_TRUE(names.contains(name)) << name;
  EXPECT_EQ(m.graph.parameter_count(), build_for_scales("resnet:depth=20").graph.parameter_count() - 2 * (16 * 7 + 32 * 6 + 64 * 6) + 47);
  EXPECT_EQ(initial_values(m, "layer2.0.branch.scale"), std::vector<float>{1});
  EXPECT_EQ(mean_square_of(initial_values(m, "layer2.0.conv2.weight")), 0);
  EXPECT_EQ(mean_square_of(initial_values(m, "fc.weight")), 0);
  // m = 2: L^(-1/2) of He's standard deviation, so a ninth of its variance; 36864 elements scatter by 0.7 %.
  const std::vector<float> he = initial_values(build_for_scales("resnet:depth=20,norm=none"), "layer3.1.conv1.weight"),
                           fixup = initial_values(m, "layer3.1.conv1.weight");
  EXPECT_NEAR(mean_square_of(fixup) / mean_square_of(he), 1.0 / 9, 1e-6);
  // m = 3: L^(-1/4), 16 blocks: half of He's.
  const Model bottleneck = build_for_scales("resnet50:norm=none,init=fixup");
  EXPECT_EQ(bottleneck.graph.parameter(bottleneck.graph.find_parameter("layer2.1.conv2.weight")).factor, 0.5);
  EXPECT_EQ(bottleneck.graph.parameter(bottleneck.graph.find_parameter("layer2.1.conv3.weight")).factor, 0);
  EXPECT_EQ(bottleneck.graph.parameter(bottleneck.graph.find_parameter("layer2.0.downsample.0.weight")).factor, 1);
}

// At the start every block is the identity: the stem's gradient is the last block's, bit for bit.
TEST(BranchScales, BlocksStartAsTheIdentity) {
  for (const char* text : {"mlp:depth=22,width=8,act=tanh,skip=on,branch_scale=skipinit",
                           "mlp:depth=22,width=8,skip=on,branch=2,norm=bn,branch_scale=rezero"}) {
    const Model m = build_for_scales(text);
    const std::unique_ptr<Backend> device = open_device("cpu", 1);
    ParameterStore store(*device, m.graph);
    store.initialize(m.spec.initializer(), 3);
    Executor executor(m.graph, store, nullptr, {.retain = true});
    const Tensor x = executor.input("x");
    RandomStream(3, "x").fill_normal(std::span(x.as<float>(), x.elements()), 0, 1);
    executor.step();
    const auto gradient = [&](ValueId v) {
      const Tensor g = executor.gradient(v);
      return std::vector<float>(g.as<float>(), g.as<float>() + g.elements());
    };
    const std::vector<float> last = gradient(m.layers[m.layers.size() - 2].z);
    EXPECT_EQ(gradient(m.layers.front().z), last);
    EXPECT_GT(mean_square_of(last), 0);
    const ParameterId scale = m.graph.find_parameter("block01.branch.scale");
    EXPECT_NE(executor.parameter_gradient(scale).as<float>()[0], 0.0f);  // and it will not stay so
  }
}

}  // namespace
}  // namespace gradflow
