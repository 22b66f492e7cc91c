// Model builders: from a short text to a graph.
//
//   mlp:depth=50,width=256,act=tanh,skip=on,branch=1,norm=bn,init=xavier
//
// A stem (linear), then units [norm] -> act -> linear, then a head [norm] -> act -> linear to the classes;
// `depth` counts the linear layers, stem and head included. With skip=on each `branch` units form a
// residual block x + scale * branch(x) (full pre-activation, He et al. 2016); with skip=off the same units are
// a chain. So a plain and a residual network of equal depth, width and seed have the same parameters,
// bit for bit, and z^l below means the same in both.
//
//   resnet:depth=56,version=v1,shortcut=A,norm=bn       plain:depth=56
//
// He et al. 2015 (1512.03385), section 4.2, for small images: a 3x3 convolution to 16 channels, three stages of n
// blocks of two 3x3 convolutions with 16, 32, 64 channels, the second and third stage beginning with stride 2,
// global average pooling, and a linear layer: depth 6n+2. version=v2 is the pre-activation form (1603.05027).
// block=bottleneck, as in ResNet-164 and -1001 of the same paper: 1x1, 3x3 and 1x1 convolutions, the last to four times
// as many channels, and depth 9n+2; stride 2 in the 3x3 convolution.
// `plain` leaves out the shortcuts and is otherwise the same, names and bits of all its weights included.
//
//   resnet18, resnet34, resnet50, resnet101, resnet152
//
// The ImageNet networks of the same paper, as torchvision builds them: stride 2 in a bottleneck's 3x3
// convolution, projection shortcuts where the shape changes, its parameter names. shortcut=A|B|C as above, B if not
// given. version=v2, which torchvision has not: max pooling directly behind the first convolution, pre-activation
// blocks, norm ("bn") and activation in front of the average pooling.
//
// Residual networks that keep their signal level without batch norm, in all three families:
//
//   branch_scale=skipinit, rezero   x + a * branch(x), a a learned number for each block, 0 at the start
//   init=fixup                      Zhang et al. 2019 (1901.09321); branch_scales.h says what is built
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "gradflow/engine/dataset.h"
#include "gradflow/engine/graph.h"
#include "gradflow/engine/parameters.h"

namespace gradflow {

struct MlpSpec {
  std::int64_t depth = 50, width = 256;
  PointwiseId act = PointwiseId::relu;
  bool skip = false;
  int branch = 1;            // linear layers in a residual block
  bool batch_norm = false;
  bool bias = true;
  double branch_scale = 1;     // of a learned one, what it starts from
  bool learned_scale = false;  // a parameter for each block: skipinit, rezero, fixup
  bool fixup = false;          // residual networks without batch norm only
  Initializer initializer;
};

// A shortcut where a block changes the shape: A every stride-th pixel and zeros for new channels; B a projection
// (1x1 convolution); C projections in all blocks.
enum class ShortcutKind : std::uint8_t { A, B, C };

struct ConvNetSpec {
  bool imagenet = false;        // the networks for large images; depth is then 18, 34, 50, 101 or 152
  bool residual = true;         // false: plain
  std::int64_t depth = 20;      // weight layers, projections not counted
  bool bottleneck = false;      // blocks of 1x1, 3x3 and 1x1 convolutions, the last to four times as many channels
  bool pre_activation = false;  // version v2
  ShortcutKind shortcut = ShortcutKind::A;  // what parse_model takes for large images if not told: B
  bool batch_norm = true;       // without it, convolutions have biases (zero at first)
  PointwiseId act = PointwiseId::relu;
  double branch_scale = 1;      // as in MlpSpec
  bool learned_scale = false;
  bool fixup = false;
  Initializer initializer;
};

struct ModelSpec {
  std::string text;  // as written
  MlpSpec mlp;
  std::optional<ConvNetSpec> conv;  // then `mlp` means nothing

  const Initializer& initializer() const { return conv ? conv->initializer : mlp.initializer; }
};

// Strict; UserError names what is wrong and the nearest valid name.
ModelSpec parse_model(std::string_view text);

// What `parse_model` understands, for --help.
std::string_view model_help();

// One weight layer of a model, from the input: 1 = stem ... L = head.
struct WeightLayer {
  std::string name;           // "block07.linear"
  ParameterId weight = kNobody;
  // z^l, the pre-activation stream after this layer: its own output, or for the last layer of a residual
  // block the block's output. Logits for the head.
  ValueId z = kNobody;
  std::optional<ValueId> activation;  // what the nonlinearity makes of z^l; none for the head
  bool block_input = false;           // z^l feeds a residual block: its gradient has a skip and a branch part
  // What feeds a residual block behind this layer: z^l, or with version v1 the activation of it.
  std::optional<ValueId> split;
};

struct ModelShape {
  std::int64_t batch = 1, features = 1, classes = 2;
  DType dtype = DType::f32;
  ImageShape image;  // what the features are; networks of convolutions need it
};

ModelShape shape_of(const Dataset& data, std::int64_t batch, DType dtype = DType::f32);

struct Model {
  ModelSpec spec;
  // Inputs "x", [batch, features] or [batch, height, width, channels], and "labels" i32 [batch]; ends in "loss".
  Graph graph;
  ValueId x = kNobody, labels = kNobody, logits = kNobody;
  std::vector<WeightLayer> layers;
};

Model build_model(const ModelSpec& spec, const ModelShape& shape);

}  // namespace gradflow
