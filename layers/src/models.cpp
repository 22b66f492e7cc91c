#include "gradflow/layers/models.h"

#include <fmt/format.h>

#include <array>
#include <cmath>

#include "branch_scales.h"
#include "conv_models.h"
#include "gradflow/engine/spec_text.h"
#include "gradflow/engine/text.h"
#include "gradflow/kernels/error.h"
#include "gradflow/layers/activation.h"
#include "gradflow/layers/batch_norm.h"
#include "gradflow/layers/linear.h"
#include "gradflow/layers/softmax_cross_entropy.h"

namespace gradflow {

namespace {

// What act= may be: every pointwise op, by its name.
constexpr auto kActivations = [] {
  std::array<std::string_view, ops::All::size> names;
  std::size_t count = 0;
  ops::All::for_each([&]<class Op>() { names[count++] = Op::name; });
  return names;
}();

std::string describe_models() {
  return fmt::format(
      "mlp[:key=value,...]   fully connected network, pre-activation units [norm] -> act -> linear\n"
      "  depth=50            linear layers, stem and head included (1 .. 100000)\n"
      "  width=256           units of each hidden layer\n"
      "  act=relu            {}\n"
      "  skip=off            on: residual blocks x + branch(x)\n"
      "  branch=1            linear layers in a residual block, 1 or 2 (only with skip=on)\n"
      "  branch_scale=1      factor on every branch: a number, or 1/sqrt(L) with L the number of blocks;\n"
      "                      skipinit, rezero: a learned number for each block, 0 at first (skipinit: norm=none)\n"
      "  norm=none           bn: batch norm before every activation\n"
      "  init=he             lecun, xavier, he, torch, orthogonal; fixup: he, first layers of a branch scaled down,\n"
      "                      last ones zero, scalar biases and multipliers (norm=none, only with skip=on)\n"
      "  gain=1              factor on every initial weight\n"
      "  bias=on             off: no biases\n"
      "resnet[:...], plain[:...]   convolutional networks of He et al. 2015 for small images\n"
      "  depth=20            weight layers: 6n+2 (20, 32, 44, 56, 110, 1202); of bottlenecks 9n+2 (164, 1001)\n"
      "  block=basic         two 3x3 convolutions; bottleneck: 1x1, 3x3, 1x1 to four times as many channels\n"
      "  version=v1          v2: pre-activation blocks (He et al. 2016)\n"
      "  norm=bn             none: biases instead of batch norm\n"
      "  act, init, gain     as above (fixup: resnet)\n"
      "  shortcut=A          A zero-padded, B projection where the shape changes, C projection always (resnet)\n"
      "  branch_scale=1      as above (resnet)\n"
      "resnet18, resnet34, resnet50, resnet101, resnet152   for ImageNet, named as in torchvision\n"
      "  shortcut=B          A, B or C, as above\n"
      "  version=v1          v2: pre-activation blocks behind first convolution and pooling (not in torchvision)\n"
      "  norm, act, init, gain, branch_scale   as above\n",
      fmt::join(kActivations, ", "));
}

}  // namespace

std::string_view model_help() {
  static const std::string text = describe_models();
  return text;
}

template <class Spec>
void read_common(SpecReader& reader, Spec& spec, std::string_view norm) {
  spec.act = *find_pointwise(reader.get_choice("act", kActivations, "relu"));
  spec.batch_norm = reader.get_choice("norm", {"none", "bn"}, norm) == "bn";
  const std::string init = reader.get_choice("init", {"lecun", "xavier", "he", "torch", "orthogonal", "fixup"}, "he");
  using Kind = Initializer::Kind;
  for (const Kind kind : {Kind::lecun, Kind::xavier, Kind::he, Kind::torch, Kind::orthogonal})
    if (init == name_of(kind)) spec.initializer.kind = kind;
  spec.initializer.gain = reader.get_double("gain", 1, 0, 1e6);
  spec.fixup = spec.learned_scale = init == "fixup";
  if (spec.fixup && spec.batch_norm) reader.reject("init=fixup takes the place of batch norm: add norm=none");
}

template <class Spec>
void read_branch_scale(SpecReader& reader, std::int64_t blocks, Spec& spec) {
  const std::string scale = reader.get_text("branch_scale", "1");
  if (spec.fixup && reader.has("branch_scale")) reader.reject("init=fixup has multipliers of its own: leave branch_scale out");
  if (scale == "1/sqrt(L)") {
    if (blocks > 0) spec.branch_scale = 1 / std::sqrt(static_cast<double>(blocks));
  } else if (scale == "skipinit" || scale == "rezero") {
    spec.learned_scale = true;
    spec.branch_scale = 0;
    if (scale == "skipinit" && spec.batch_norm)
      reader.reject("branch_scale=skipinit takes the place of batch norm: add norm=none, or use rezero");
  } else if (!parse_double(scale, spec.branch_scale)) {
    reader.reject("branch_scale", "a finite number, 1/sqrt(L), skipinit or rezero");
  }
}

template void read_common(SpecReader&, MlpSpec&, std::string_view);
template void read_common(SpecReader&, ConvNetSpec&, std::string_view);
template void read_branch_scale(SpecReader&, std::int64_t, MlpSpec&);
template void read_branch_scale(SpecReader&, std::int64_t, ConvNetSpec&);

ModelSpec parse_model(std::string_view text) {
  SpecReader reader(text, "model");
  ModelSpec spec{.text = std::string(text), .mlp = {}, .conv = std::nullopt};
  if (is_conv_net(reader.name())) {
    spec.conv = parse_conv_net(reader);
    return spec;
  }
  if (reader.name() != "mlp") {
    std::vector<std::string> names = conv_net_names();
    names.insert(names.begin(), "mlp");
    throw_unknown_name("model", text, reader.name(), names);
  }
  MlpSpec& m = spec.mlp;
  m.depth = reader.get_int("depth", 50, 1, 100000);
  m.width = reader.get_int("width", 256, 1, 65536);
  read_common(reader, m, "none");
  m.skip = reader.get_switch("skip", false);
  const bool branch_given = reader.has("branch"), scale_given = reader.has("branch_scale");
  m.branch = static_cast<int>(reader.get_int("branch", 1, 1, 2));
  const bool bias_given = reader.has("bias");
  m.bias = reader.get_switch("bias", true);
  const std::int64_t hidden = m.depth - 2;
  if (!m.skip && (branch_given || scale_given)) reader.reject("branch and branch_scale belong to residual networks: add skip=on");
  if (!m.skip && m.fixup) reader.reject("init=fixup belongs to residual networks: add skip=on");
  if (m.fixup && bias_given) reader.reject("init=fixup has scalar biases: leave bias out");
  if (m.skip && hidden < m.branch) reader.reject("a residual network needs a stem, at least one block and a head: raise depth");
  if (m.skip && hidden % m.branch != 0) reader.reject("depth minus stem and head must be a multiple of branch");
  read_branch_scale(reader, m.skip ? hidden / m.branch : 0, m);
  reader.finish();
  return spec;
}

namespace {

// Adds nodes and remembers what the report wants to know of each weight layer.
class MlpBuilder {
 public:
  MlpBuilder(Model& model, std::int64_t classes) : model_(model), spec_(model.spec.mlp), classes_(classes) {}

  ValueId build() {
    const std::int64_t hidden = spec_.depth - 2;
    if (spec_.depth == 1) return linear("head.linear", model_.x, classes_, spec_.bias, 1);
    ValueId z = linear("stem.linear", model_.x, spec_.width, spec_.bias && !spec_.fixup, 1);
    const std::int64_t blocks = spec_.skip ? hidden / spec_.branch : hidden;
    const int digits = static_cast<int>(fmt::formatted_size("{}", blocks));
    for (std::int64_t b = 1; b <= blocks; ++b) {
      const std::string block = fmt::format("block{:0{}}", b, std::max(2, digits));
      z = spec_.skip ? residual(block, z, blocks) : unit(block, "", z, spec_.width, spec_.bias, 1);
    }
    return unit("head", "", z, classes_, spec_.bias, spec_.fixup ? 0 : 1);
  }

 private:
  Model& model_;
  const MlpSpec& spec_;
  std::int64_t classes_;

  ValueId linear(const std::string& name, ValueId x, std::int64_t out, bool bias, double weight_factor) {
    const ValueId z = model_.graph.add<Linear>(name, {x}, out, bias, weight_factor);
    const ParameterId weight = model_.graph.nodes().back().parameters.front();
    model_.layers.push_back({.name = name, .weight = weight, .z = z,
                             .activation = std::nullopt, .block_input = false, .split = std::nullopt});
    return z;
  }

  ValueId unit(const std::string& block, const std::string& suffix, ValueId z, std::int64_t out, bool bias,
               double weight_factor) {
    ValueId h = fixup_bias(block, suffix + "a", z);
    if (spec_.batch_norm) h = model_.graph.add<BatchNorm>(fmt::format("{}.norm{}", block, suffix), {h});
    // "linear" is the name of the weight layer behind it.
    const std::string_view act = spec_.act == PointwiseId::identity ? "identity" : info_of(spec_.act).name;
    h = model_.graph.add<Activation>(fmt::format("{}.{}{}", block, act, suffix), {h}, spec_.act);
    model_.layers.back().activation = h;
    h = fixup_bias(block, suffix + "b", h);
    return linear(fmt::format("{}.linear{}", block, suffix), h, out, bias, weight_factor);
  }

  ValueId fixup_bias(const std::string& block, const std::string& suffix, ValueId x) {
    return add_fixup_bias(model_.graph, spec_, fmt::format("{}.bias{}", block, suffix), x);
  }

  ValueId residual(const std::string& block, ValueId x, std::int64_t blocks) {
    model_.layers.back().block_input = true;
    model_.layers.back().split = x;
    ValueId branch = x;
    for (int k = 1; k <= spec_.branch; ++k)
      branch = unit(block, spec_.branch == 1 ? "" : fmt::format("{}", k), branch, spec_.width, spec_.bias && !spec_.fixup,
                    spec_.fixup ? fixup_factor(blocks, k, spec_.branch) : 1);
    const ValueId y = add_branch(model_.graph, spec_, block + ".", x, branch, false);
    model_.layers.back().z = y;
    return y;
  }
};

}  // namespace

ModelShape shape_of(const Dataset& data, std::int64_t batch, DType dtype) {
  return {.batch = batch, .features = static_cast<std::int64_t>(data.shape.features()), .classes = data.classes, .dtype = dtype,
          .image = data.shape};
}

Model build_model(const ModelSpec& spec, const ModelShape& shape) {
  if (shape.batch < 1) throw UserError(fmt::format("a batch of {}: at least 1", shape.batch));
  Model model;
  model.spec = spec;
  model.graph = Graph(shape.dtype);
  const auto extent = [](std::size_t n) { return static_cast<std::int64_t>(n); };
  Shape x{shape.batch, shape.features};
  if (spec.conv) {
    if (shape.image.features() == 0)
      throw UserError(fmt::format("model {}: it takes images, and nothing says how the {} features are arranged", quote(spec.text), shape.features));
    x = {shape.batch, extent(shape.image.height), extent(shape.image.width), extent(shape.image.channels)};
  }
  model.x = model.graph.input("x", {x, shape.dtype});
  model.labels = model.graph.input("labels", {{shape.batch}, DType::i32});
  try {
    model.logits = spec.conv ? build_conv_net(model, shape.classes) : MlpBuilder(model, shape.classes).build();
  } catch (const UserError& e) {
    if (!spec.conv) throw;
    throw UserError(fmt::format("model {} on images of {}x{}: {}", quote(spec.text), shape.image.height, shape.image.width, e.what()));
  }
  model.graph.add_loss<SoftmaxCrossEntropy>("loss", {model.logits, model.labels});
  return model;
}

}  // namespace gradflow
