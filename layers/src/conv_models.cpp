#include "conv_models.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "branch_scales.h"
#include "gradflow/kernels/error.h"
#include "gradflow/layers/activation.h"
#include "gradflow/layers/batch_norm.h"
#include "gradflow/layers/convolution.h"
#include "gradflow/layers/linear.h"
#include "gradflow/layers/pooling.h"

namespace gradflow {
namespace {

struct ImagenetShape {
  std::int64_t depth;
  bool bottleneck;
  std::array<std::int64_t, 4> blocks;
};
constexpr ImagenetShape kImagenet[] = {
    {18, false, {2, 2, 2, 2}},  {34, false, {3, 4, 6, 3}},  {50, true, {3, 4, 6, 3}},
    {101, true, {3, 4, 23, 3}}, {152, true, {3, 8, 36, 3}},
};

const ImagenetShape* find_imagenet(std::string_view name) {
  for (const ImagenetShape& s : kImagenet)
    if (name == fmt::format("resnet{}", s.depth)) return &s;
  return nullptr;
}

std::int64_t blocks_of(const ConvNetSpec& spec) {
  if (!spec.imagenet) return (spec.depth - 2) / (spec.bottleneck ? 3 : 2);
  for (const ImagenetShape& s : kImagenet)
    if (s.depth == spec.depth) return s.blocks[0] + s.blocks[1] + s.blocks[2] + s.blocks[3];
  return 0;
}

// Names are torchvision's: conv1, bn1, layer1.0.conv1, layer1.0.downsample.0, fc.
class ConvNetBuilder {
 public:
  ConvNetBuilder(Model& model, std::int64_t classes)
      : model_(model), spec_(*model.spec.conv), classes_(classes) {}

  ValueId build() {
    ValueId x = spec_.imagenet ? stem(64, 7, 2) : stem(16, 3, 1);
    if (spec_.imagenet) {
      x = graph().add<MaxPool>("maxpool", {x}, PoolOptions{3, 3, 2, 2, 1, 1});
      const ImagenetShape& shape = *find_imagenet(fmt::format("resnet{}", spec_.depth));
      for (std::int64_t s = 0; s < 4; ++s)
        x = stage(s + 1, x, shape.blocks[static_cast<std::size_t>(s)], std::int64_t{64} << s);
    } else {
      for (std::int64_t s = 0; s < 3; ++s)
        x = stage(s + 1, x, blocks_of(spec_) / 3, std::int64_t{16} << s);
    }
    if (spec_.pre_activation) x = normalized_act("", "", x);
    x = graph().add<GlobalAveragePool>("avgpool", {x});
    x = fixup_bias("bias2", x);
    x = graph().add<Linear>("fc", {x}, classes_, true, spec_.fixup ? 0.0 : 1.0);
    remember("fc", x);
    return x;
  }

 private:
  Model& model_;
  const ConvNetSpec& spec_;
  std::int64_t classes_;

  Graph& graph() { return model_.graph; }
  std::int64_t channels(ValueId x) { return model_.graph.value(x).spec.shape.back(); }
  std::string_view act_name() const {
    return spec_.act == PointwiseId::identity ? "identity" : info_of(spec_.act).name;
  }

  // The layer just added is a weight layer on the way from input to output.
  void remember(const std::string& name, ValueId z) {
    model_.layers.push_back({.name = name,
                             .weight = model_.graph.nodes().back().parameters.front(),
                             .z = z,
                             .activation = std::nullopt,
                             .block_input = false,
                             .split = std::nullopt});
  }

  ValueId convolution(const std::string& name, ValueId x, std::int64_t out, std::int64_t kernel,
                      std::int64_t stride, double weight_factor = 1) {
    ConvolutionOptions o = ConvolutionOptions::square(out, kernel, stride);
    o.bias = !spec_.batch_norm && !spec_.fixup;
    o.weight_factor = weight_factor;
    return graph().add<Convolution>(name, {x}, o);
  }
  ValueId weight_layer(const std::string& name, ValueId x, std::int64_t out, std::int64_t kernel,
                       std::int64_t stride, double weight_factor = 1) {
    const ValueId z = convolution(name, x, out, kernel, stride, weight_factor);
    remember(name, z);
    return z;
  }
  ValueId norm(const std::string& name, ValueId x) {
    return spec_.batch_norm ? graph().add<BatchNorm>(name, {x}, BatchNormOptions{.torch_names = true}) : x;
  }
  ValueId fixup_bias(const std::string& name, ValueId x) {
    return add_fixup_bias(graph(), spec_, name, x);
  }
  ValueId act(const std::string& name, ValueId x) {
    const ValueId h = graph().add<Activation>(name, {x}, spec_.act);
    model_.layers.back().activation = h;
    return h;
  }
  // "bnK" and "reluK" of a block; the last norm of a pre-activation network has no number.
  ValueId normalized_act(const std::string& block, const std::string& k, ValueId x) {
    x = norm(fmt::format("{}bn{}", block, k), x);
    x = fixup_bias(block.empty() ? "bias1" : fmt::format("{}bias{}a", block, k), x);
    return act(fmt::format("{}{}{}", block, act_name(), k), x);
  }

  ValueId stem(std::int64_t out, std::int64_t kernel, std::int64_t stride) {
    const ValueId z = weight_layer("conv1", model_.x, out, kernel, stride);
    return spec_.pre_activation ? z : act(std::string(act_name()), fixup_bias("bias1", norm("bn1", z)));
  }

  ValueId stage(std::int64_t number, ValueId x, std::int64_t blocks, std::int64_t width) {
    for (std::int64_t b = 0; b < blocks; ++b) {
      const std::int64_t stride = b == 0 && number > 1 ? 2 : 1;
      x = block(fmt::format("layer{}.{}.", number, b), x, width, stride);
    }
    return x;
  }

  ValueId block(const std::string& name, ValueId x, std::int64_t width, std::int64_t stride) {
    const bool bottleneck = spec_.bottleneck;
    const std::int64_t out = bottleneck ? 4 * width : width;
    if (spec_.residual) {
      WeightLayer& before = model_.layers.back();
      before.split = x;
      before.block_input = before.z == x;
    }
    ValueId skip = x, branch = x;
    if (spec_.pre_activation) branch = normalized_act(name, "1", x);
    branch = fixup_bias(name + (spec_.pre_activation ? "bias1b" : "bias1a"), branch);
    // A projection reads what the branch's first convolution reads. Where that is not x, x itself feeds one layer
    // only and its gradient has one part.
    if (branch != x && projects(x, out, stride) && spec_.residual) {
      model_.layers.back().split.reset();
      model_.layers.back().block_input = false;
      skip = branch;
    }
    if (spec_.residual) skip = shortcut(name, skip, x, out, stride);
    const int convolutions = bottleneck ? 3 : 2;
    for (int k = 1; k <= convolutions; ++k) {
      const bool middle = k == (bottleneck ? 2 : 1), last = k == convolutions;
      const std::string number = std::to_string(k);
      if (k > 1) {
        if (spec_.pre_activation) branch = normalized_act(name, number, branch);
        branch = fixup_bias(fmt::format("{}bias{}{}", name, k, spec_.pre_activation ? "b" : "a"), branch);
      }
      branch = weight_layer(name + "conv" + number, branch, last ? out : width, bottleneck && !middle ? 1 : 3,
                            middle ? stride : 1, spec_.fixup ? fixup_factor(blocks_of(spec_), k, convolutions) : 1);
      if (!spec_.pre_activation) {
        branch = norm(name + "bn" + number, branch);
        if (!last)
          branch = act(fmt::format("{}{}{}", name, act_name(), number),
                       fixup_bias(fmt::format("{}bias{}b", name, k), branch));
      }
    }
    ValueId y = branch;
    if (spec_.residual) {
      y = add_branch(graph(), spec_, name, skip, branch, !spec_.pre_activation);
      model_.layers.back().z = y;
    }
    if (!spec_.pre_activation) y = act(fmt::format("{}{}{}", name, act_name(), convolutions), y);
    return y;
  }

  bool projects(ValueId x, std::int64_t out, std::int64_t stride) {
    const bool changes = stride != 1 || channels(x) != out;
    return spec_.shortcut == ShortcutKind::C || (spec_.shortcut == ShortcutKind::B && changes);
  }

  // x decides the shape; `from` is what is read.
  ValueId shortcut(const std::string& name, ValueId from, ValueId x, std::int64_t out, std::int64_t stride) {
    if (projects(x, out, stride)) {
      const ValueId y = convolution(name + "downsample.0", from, out, 1, stride);
      return spec_.pre_activation ? y : norm(name + "downsample.1", y);
    }
    if (stride == 1 && channels(x) == out) return from;
    return graph().add<ZeroPadShortcut>(name + "shortcut", {from}, out, stride);
  }
};

}  // namespace

std::vector<std::string> conv_net_names() {
  std::vector<std::string> names = {"resnet", "plain"};
  for (const ImagenetShape& s : kImagenet) names.push_back(fmt::format("resnet{}", s.depth));
  return names;
}

bool is_conv_net(std::string_view name) {
  const auto names = conv_net_names();
  return std::ranges::find(names, name) != names.end();
}

ConvNetSpec parse_conv_net(SpecReader& reader) {
  ConvNetSpec spec;
  if (const ImagenetShape* shape = find_imagenet(reader.name())) {
    spec.imagenet = true;
    spec.depth = shape->depth;
    spec.bottleneck = shape->bottleneck;
  } else {
    spec.residual = reader.name() == "resnet";
    spec.bottleneck = reader.get_choice("block", {"basic", "bottleneck"}, "basic") == "bottleneck";
    const std::int64_t group = spec.bottleneck ? 9 : 6;  // layers of three blocks, one in each stage
    spec.depth = reader.get_int("depth", 20, group + 2, 100000);
    if (const std::int64_t rest = (spec.depth - 2) % group; rest != 0)
      reader.reject("depth", fmt::format("{}n+2, {} layers in each of 3n blocks; nearest are {} and {}", group,
                                         spec.bottleneck ? "three" : "two", spec.depth - rest, spec.depth - rest + group));
  }
  spec.pre_activation = reader.get_choice("version", {"v1", "v2"}, "v1") == "v2";
  read_common(reader, spec, "bn");
  if (!spec.residual && spec.fixup) reader.reject("init=fixup belongs to residual networks: use resnet");
  if (spec.residual) {
    const std::string kind = reader.get_choice("shortcut", {"A", "B", "C"}, spec.imagenet ? "B" : "A");
    spec.shortcut = kind == "A" ? ShortcutKind::A : kind == "B" ? ShortcutKind::B : ShortcutKind::C;
    read_branch_scale(reader, blocks_of(spec), spec);
  }
  reader.finish();
  return spec;
}

ValueId build_conv_net(Model& model, std::int64_t classes) { return ConvNetBuilder(model, classes).build(); }

}  // namespace gradflow
