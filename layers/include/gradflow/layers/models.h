// Model builders: from a short text to a graph.
//
//   mlp:depth=50,width=256,act=tanh,skip=on,branch=1,norm=bn,init=xavier
//
// A stem (linear), then units [norm] -> act -> linear, then a head [norm] -> act -> linear to the classes;
// `depth` counts the linear layers, stem and head included. With skip=on each `branch` units form a
// residual block x + scale * branch(x) (full pre-activation, He et al. 2016); with skip=off the same units are
// a chain. So a plain and a residual network of equal depth, width and seed have the same parameters,
// bit for bit, and z^l below means the same in both.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

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
  double branch_scale = 1;
  Initializer initializer;
};

struct ModelSpec {
  std::string text;  // as written
  MlpSpec mlp;
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
};

struct ModelShape {
  std::int64_t batch = 1, features = 1, classes = 2;
  DType dtype = DType::f32;
};

struct Model {
  ModelSpec spec;
  Graph graph;  // inputs "x" [batch, features] and "labels" i32 [batch]; ends in the loss "loss"
  ValueId x = kNobody, labels = kNobody, logits = kNobody;
  std::vector<WeightLayer> layers;
};

Model build_model(const ModelSpec& spec, const ModelShape& shape);

}  // namespace gradflow
