// The convolutional networks: topology and counts as published, and gradients of whole small ones.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cctype>
#include <cmath>
#include <map>
#include <set>

#include "gradflow/kernels/error.h"
#include "gradflow/layers/models.h"
#include "layers/harness.h"

namespace gradflow {
namespace {

using test::check_gradients;
using test::Network;

Model build(const std::string& text, ImageShape image, std::int64_t classes, std::int64_t batch = 2,
            DType dtype = DType::f32) {
  return build_model(parse_model(text), {.batch = batch,
                                         .features = static_cast<std::int64_t>(image.features()),
                                         .classes = classes,
                                         .dtype = dtype,
                                         .image = image});
}

constexpr ImageShape kCifar{32, 32, 3};

// Convolutions, batch norm's two numbers a channel, and the last layer; He et al. 2015, Table 6, prints them
// rounded (0.27 M ... 19.4 M).
TEST(ConvModels, ParameterCountsAreThePublishedOnes) {
  const std::map<int, std::size_t> counts = {{20, 269722}, {32, 464154},   {44, 658586},
                                             {56, 853018}, {110, 1727962}, {1202, 19421274}};
  for (const auto& [depth, count] : counts) {
    for (const char* family : {"resnet", "plain"}) {
      const Model m = build(fmt::format("{}:depth={}", family, depth), kCifar, 10);
      EXPECT_EQ(m.graph.parameter_count(), count) << family << depth;
      EXPECT_EQ(m.layers.size(), static_cast<std::size_t>(depth));
    }
  }
  // He et al. 2016, Table 4, prints 1.7 M and 10.2 M.
  const std::map<std::string, std::size_t> bottlenecks = {{"resnet:depth=164,block=bottleneck,shortcut=B", 1704154},
                                                          {"resnet:depth=164,block=bottleneck,shortcut=B,version=v2", 1703258},
                                                          {"resnet:depth=1001,block=bottleneck,version=v2", 10285722}};
  for (const auto& [text, count] : bottlenecks) EXPECT_EQ(build(text, kCifar, 10).graph.parameter_count(), count) << text;
  // torchvision's figures.
  const std::map<int, std::size_t> imagenet = {
      {18, 11689512}, {34, 21797672}, {50, 25557032}, {101, 44549160}, {152, 60192808}};
  for (const auto& [depth, count] : imagenet) {
    const Model m = build(fmt::format("resnet{}", depth), {224, 224, 3}, 1000);
    EXPECT_EQ(m.graph.parameter_count(), count) << depth;
    EXPECT_EQ(m.layers.size(), static_cast<std::size_t>(depth));
  }
}

// Counted here from the paper's tables: a block's convolutions, two numbers a channel for the norm behind each (v1) or in
// front of it (v2), projections.
std::size_t counted_imagenet(const std::vector<std::int64_t>& blocks, bool bottleneck, bool v2, char shortcut) {
  std::int64_t total = 64 * 3 * 49 + (v2 ? 0 : 2 * 64), before = 64;
  for (std::size_t stage = 0; stage < blocks.size(); ++stage)
    for (std::int64_t b = 0; b < blocks[stage]; ++b) {
      const std::int64_t width = std::int64_t{64} << stage, out = bottleneck ? 4 * width : width;
      struct Taps {
        std::int64_t in, out, window;
      };
      const std::vector<Taps> convolutions = bottleneck ? std::vector<Taps>{{before, width, 1}, {width, width, 9}, {width, out, 1}}
                                                        : std::vector<Taps>{{before, width, 9}, {width, width, 9}};
      for (const Taps& c : convolutions) total += c.in * c.out * c.window + 2 * (v2 ? c.in : c.out);
      const bool changes = before != out || (b == 0 && stage > 0);
      if (shortcut == 'C' || (shortcut == 'B' && changes)) total += before * out + (v2 ? 0 : 2 * out);
      before = out;
    }
  return static_cast<std::size_t>(total + (v2 ? 2 * before : 0) + before * 1000 + 1000);
}

TEST(ConvModels, NetworksForLargeImagesHaveBothVersionsAndAllShortcuts) {
  for (const int depth : {34, 50})
    for (const bool v2 : {false, true})
      for (const char shortcut : {'A', 'B', 'C'}) {
        const std::string text = fmt::format("resnet{}:version=v{},shortcut={}", depth, v2 ? 2 : 1, shortcut);
        const Model m = build(text, {224, 224, 3}, 1000);
        EXPECT_EQ(m.graph.parameter_count(), counted_imagenet({3, 4, 6, 3}, depth == 50, v2, shortcut)) << text;
        EXPECT_EQ(m.layers.size(), static_cast<std::size_t>(depth)) << text;
        for (const WeightLayer& layer : m.layers)
          if (layer.split) {
            EXPECT_EQ(m.graph.value(*layer.split).consumers.size(), 2u) << text << " " << layer.name;
          }
      }
  const Model m = build("resnet50:version=v2", {224, 224, 3}, 1000);
  const auto inputs = [&](const char* name) {  // of the node that makes this value
    const ValueId v = m.graph.find_value(name);
    return m.graph.node(m.graph.value(v).producer).inputs;
  };
  EXPECT_EQ(inputs("maxpool").front(), m.graph.find_value("conv1"));
  EXPECT_EQ(inputs("layer1.0.bn1").front(), m.graph.find_value("maxpool"));
  EXPECT_EQ(inputs("layer1.1.add").front(), m.graph.find_value("layer1.0.add"));
  EXPECT_EQ(inputs("bn").front(), m.graph.find_value("layer4.2.add"));
  EXPECT_EQ(inputs("avgpool").front(), m.graph.find_value("relu"));
}

TEST(ConvModels, NamesAndShapesAreTorchvisions) {
  const Model m = build("resnet50", {224, 224, 3}, 1000);
  std::map<std::string, std::string> shapes;
  for (const ParameterSpec& p : m.graph.parameters()) shapes[p.name] = p.shape.to_string();
  EXPECT_EQ(shapes.size(), 161u);
  // [outputs, height, width, channels]: torchvision's [outputs, channels, height, width] permuted.
  EXPECT_EQ(shapes["conv1.weight"], "[64, 7, 7, 3]");
  EXPECT_EQ(shapes["bn1.weight"], "[64]");
  EXPECT_EQ(shapes["bn1.bias"], "[64]");
  EXPECT_EQ(shapes["layer1.0.conv1.weight"], "[64, 1, 1, 64]");
  EXPECT_EQ(shapes["layer1.0.conv3.weight"], "[256, 1, 1, 64]");
  EXPECT_EQ(shapes["layer1.0.downsample.0.weight"], "[256, 1, 1, 64]");
  EXPECT_EQ(shapes["layer1.0.downsample.1.bias"], "[256]");
  EXPECT_EQ(shapes["layer3.5.conv2.weight"], "[256, 3, 3, 256]");
  EXPECT_EQ(shapes["layer4.2.bn3.weight"], "[2048]");
  EXPECT_EQ(shapes["fc.weight"], "[1000, 2048]");
  EXPECT_EQ(shapes["fc.bias"], "[1000]");
  std::set<std::string> states;
  for (const StateSpec& s : m.graph.states()) states.insert(s.name);
  EXPECT_TRUE(states.contains("layer4.0.downsample.1.running_var"));
  EXPECT_TRUE(states.contains("bn1.running_mean"));
  EXPECT_EQ(m.graph.value(m.graph.find_value("layer4.2.relu3")).spec.shape, (Shape{2, 7, 7, 2048}));
}

TEST(ConvModels, StagesHaveThePapersShapes) {
  const Model m = build("resnet:depth=20", kCifar, 10);
  const auto shape = [&](const char* name) { return m.graph.value(m.graph.find_value(name)).spec.shape; };
  EXPECT_EQ(shape("conv1"), (Shape{2, 32, 32, 16}));
  EXPECT_EQ(shape("layer1.2.relu2"), (Shape{2, 32, 32, 16}));
  EXPECT_EQ(shape("layer2.0.conv1"), (Shape{2, 16, 16, 32}));
  EXPECT_EQ(shape("layer3.2.relu2"), (Shape{2, 8, 8, 64}));
  EXPECT_EQ(shape("avgpool"), (Shape{2, 64}));
  const Model odd = build("resnet:depth=8", {28, 27, 1}, 10);  // any size goes
  EXPECT_EQ(odd.graph.value(odd.graph.find_value("layer3.0.add")).spec.shape, (Shape{2, 7, 7, 64}));
}

// Shortcuts of the three kinds: where there are projections, and what they add to the count.
TEST(ConvModels, ShortcutKinds) {
  const auto projections = [](const Model& m) {
    int n = 0;
    for (const Node& node : m.graph.nodes()) n += node.name.ends_with("downsample.0");
    return n;
  };
  const Model a = build("resnet:depth=20", kCifar, 10), b = build("resnet:depth=20,shortcut=B", kCifar, 10),
              c = build("resnet:depth=20,shortcut=C", kCifar, 10);
  EXPECT_EQ(projections(a), 0);
  EXPECT_EQ(projections(b), 2);
  EXPECT_EQ(projections(c), 9);
  EXPECT_EQ(b.graph.parameter_count() - a.graph.parameter_count(), 16u * 32 + 2 * 32 + 32u * 64 + 2 * 64);
  for (const Model* m : {&a, &b, &c})
    for (const WeightLayer& layer : m->layers)
      if (layer.split) {
        EXPECT_EQ(m->graph.value(*layer.split).consumers.size(), 2u) << layer.name;
      }
}

// With equal names and shapes, plain and residual networks start from the same bits.
TEST(ConvModels, PlainAndResidualShareTheirWeights) {
  const Model plain = build("plain:depth=8", kCifar, 10), residual = build("resnet:depth=8", kCifar, 10);
  ASSERT_EQ(plain.graph.parameters().size(), residual.graph.parameters().size());
  for (std::size_t i = 0; i < plain.graph.parameters().size(); ++i) {
    EXPECT_EQ(plain.graph.parameters()[i].name, residual.graph.parameters()[i].name);
    EXPECT_EQ(plain.graph.parameters()[i].shape, residual.graph.parameters()[i].shape);
  }
}

std::string error_of(const std::string& text, ImageShape image = kCifar) {
  try {
    build(text, image, 10);
  } catch (const UserError& e) {
    return e.what();
  }
  return "accepted";
}

TEST(ConvModels, WrongTextsAreSaidInOneLine) {
  EXPECT_EQ(error_of("resnet:depth=21"),
            "model 'resnet:depth=21': 'depth=21' is not 6n+2, two layers in each of 3n blocks; nearest are "
            "20 and 26 (keys: block, "
            "depth, version, act, norm, init, gain, shortcut, branch_scale)");
  EXPECT_NE(error_of("resnet:depth=25").find("nearest are 20 and 26"), std::string::npos);
  EXPECT_EQ(error_of("resnet:depth=110,block=bottleneck"), "accepted");  // 9 * 12 + 2
  EXPECT_NE(error_of("resnet:depth=50,block=bottleneck").find("is not 9n+2, three layers in each of 3n blocks; nearest are 47 and 56"),
            std::string::npos);
  EXPECT_NE(error_of("resnet:depth=8,block=bottleneck").find("'depth=8' is not a whole number from 11 to"), std::string::npos);
  EXPECT_NE(error_of("resnet50:block=basic").find("unknown key 'block'"), std::string::npos);
  EXPECT_NE(error_of("resnet51").find("did you mean 'resnet50'"), std::string::npos);
  EXPECT_NE(error_of("plain:shortcut=A").find("unknown key 'shortcut'"), std::string::npos);
  EXPECT_NE(error_of("resnet50:depth=50").find("unknown key 'depth'"), std::string::npos);
  EXPECT_NE(error_of("resnet50:shortcut=D").find("one of A, B, C"), std::string::npos);
  EXPECT_NE(error_of("resnet50:version=2").find("one of v1, v2"), std::string::npos);
  EXPECT_NE(error_of("resnet:shortcut=D").find("one of A, B, C"), std::string::npos);
  EXPECT_NE(error_of("resnet:version=v3").find("one of v1, v2"), std::string::npos);
  EXPECT_NE(error_of("resnet:branch_scale=x").find("a finite number, 1/sqrt(L), skipinit or rezero"), std::string::npos);
  EXPECT_NE(error_of("resnet:branch_scale=skipinit").find("takes the place of batch norm: add norm=none"), std::string::npos);
  EXPECT_NE(error_of("resnet:init=fixup").find("takes the place of batch norm: add norm=none"), std::string::npos);
  EXPECT_NE(error_of("plain:init=fixup,norm=none").find("residual networks: use resnet"), std::string::npos);
  EXPECT_NE(error_of("resnet50:init=fixup,norm=none,branch_scale=rezero").find("multipliers of its own"), std::string::npos);
  EXPECT_NE(error_of("mlp:init=fixup").find("add skip=on"), std::string::npos);
  EXPECT_NE(error_of("mlp:depth=4,skip=on,init=fixup,bias=off").find("leave bias out"), std::string::npos);
  EXPECT_NE(error_of("resnet", ImageShape{}).find("it takes images"), std::string::npos);
  EXPECT_EQ(error_of("resnet", {1, 1, 3}), "accepted");  // padding keeps one pixel alive
}

std::string test_name(const testing::TestParamInfo<std::string>& network) {
  std::string name = network.param;
  std::ranges::replace_if(name, [](char c) { return !std::isalnum(static_cast<unsigned char>(c)); }, '_');
  return name;
}

class SmallConvNet : public testing::TestWithParam<std::string> {};

TEST_P(SmallConvNet, GradientsAreTheSlopesOfTheLoss) {
  const Model m = build(GetParam(), {6, 5, 2}, 3, 3, DType::f64);
  Network n(m.graph, 11, {.retain = true, .input_gradients = {m.x}});
  // Weights in [-1, 1] would explode over fan-ins of 144 to 576: He's variance instead.
  n.parameters.initialize({}, 11);
  for (const ParameterSpec& p : m.graph.parameters())  // what starts at zero shows nothing there
    if (p.factor != 1) {
      const double bound = p.role == ParameterRole::scale ? 1 : std::sqrt(3.0 / static_cast<double>(p.fan_in));
      n.set_parameter(p.name, test::uniform_numbers(p.shape.elements(), -bound, bound, 11, p.name));
    }
  // Sums of some thousand terms, and a loss with more curvature than a single layer's; a fifth of the
  // elements' differences cross a kink of one of the many ReLU inputs, which the check leaves out.
  const int compared = check_gradients(n, {.step = 1e-6, .tolerance = 2e-6, .floor = 0, .per_tensor = 3});
  EXPECT_GT(compared, 30);
  double largest = 0;
  for (const ParameterSpec& p : m.graph.parameters())
    for (const double g : n.parameter_gradient(p.name)) largest = std::fmax(largest, std::fabs(g));
  EXPECT_GT(largest, 0.01) << "gradients too small to prove anything";
}

INSTANTIATE_TEST_SUITE_P(
    Networks, SmallConvNet,
    testing::Values("plain:depth=8", "plain:depth=8,norm=none,act=tanh", "resnet:depth=8",
                    "resnet:depth=8,shortcut=B", "resnet:depth=8,shortcut=C",
                    "resnet:depth=8,version=v2,act=sigmoid", "resnet:depth=8,version=v2,shortcut=B",
                    "resnet:depth=8,version=v2,shortcut=C", "resnet:depth=8,norm=none,branch_scale=skipinit",
                    "resnet:depth=8,version=v2,branch_scale=rezero", "resnet:depth=8,norm=none,init=fixup",
                    "resnet:depth=8,norm=none,init=fixup,version=v2,shortcut=C,act=tanh",
                    "resnet:depth=8,norm=none,branch_scale=1/sqrt(L)", "plain:depth=8,version=v2",
                    "resnet:depth=8,norm=none,shortcut=B", "resnet:depth=8,norm=none,shortcut=C",
                    "resnet:depth=8,norm=none,version=v2", "resnet:depth=8,norm=none,version=v2,shortcut=B",
                    "resnet:depth=8,norm=none,version=v2,shortcut=C", "resnet:depth=8,version=v2"),
    test_name);

// The networks with bottlenecks, with each kind of shortcut, of both versions, with batch norm and without.
std::vector<std::string> bottleneck_networks() {
  std::vector<std::string> texts;
  for (const char* shortcut : {"A", "B", "C"})
    for (const char* version : {"v1", "v2"})
      for (const char* norm : {"bn", "none"})
        texts.push_back(fmt::format("resnet:depth=11,block=bottleneck,shortcut={},version={},norm={}", shortcut, version, norm));
  return texts;
}
INSTANTIATE_TEST_SUITE_P(Bottlenecks, SmallConvNet, testing::ValuesIn(bottleneck_networks()), test_name);

}  // namespace
}  // namespace gradflow
