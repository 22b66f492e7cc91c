#include "gradflow/engine/graph.h"

#include <fmt/format.h>

#include <algorithm>

#include "blame_layer.h"
#include "gradflow/engine/text.h"
#include "gradflow/kernels/error.h"

namespace gradflow {

std::unique_ptr<Prepared> Layer::prepare(std::span<const TensorSpec>, Backend&) const {
  return std::make_unique<Prepared>();
}

std::shared_ptr<const Layer> Layer::fuse(const Layer&, std::size_t) const { return nullptr; }

void Graph::claim(const std::string& name) {
  if (name.empty()) throw UserError("a node or input of the graph has no name: give each a unique one");
  if (!names_.insert(name).second) throw UserError(fmt::format("the graph already has a '{}': names are unique", name));
}

ValueId Graph::input(std::string name, TensorSpec spec) {
  claim(name);
  values_.push_back({.name = std::move(name), .spec = spec, .producer = kNobody, .output = 0, .consumers = {}});
  return static_cast<ValueId>(values_.size()) - 1;
}

std::vector<ValueId> Graph::add_node(std::string name, std::shared_ptr<const Layer> layer,
                                     std::vector<ValueId> inputs) {
  const NodeId id = static_cast<NodeId>(nodes_.size());
  std::vector<TensorSpec> specs;
  specs.reserve(inputs.size());
  for (const ValueId v : inputs) {
    if (v < 0 || v >= static_cast<ValueId>(values_.size()))
      throw UserError(fmt::format("'{}': input {} is not a value of this graph", name, v));
    specs.push_back(value(v).spec);
  }
  Node node{.name = name, .layer = std::move(layer), .inputs = std::move(inputs), .outputs = {},
            .parameters = {}, .states = {}, .inference = {}};
  node.inference = blaming_layer(name, *node.layer, [&] { return node.layer->infer(specs); });
  claim(name);

  for (const ParameterSpec& p : node.inference.parameters) {
    node.parameters.push_back(static_cast<ParameterId>(parameters_.size()));
    parameters_.push_back(p);
    parameters_.back().name = fmt::format("{}.{}", name, p.name);
  }
  for (const StateSpec& s : node.inference.states) {
    node.states.push_back(static_cast<StateId>(states_.size()));
    states_.push_back(s);
    states_.back().name = fmt::format("{}.{}", name, s.name);
  }
  for (const ValueId v : node.inputs) values_[static_cast<std::size_t>(v)].consumers.push_back(id);
  const auto& outputs = node.inference.outputs;
  for (std::size_t i = 0; i < outputs.size(); ++i) {
    node.outputs.push_back(static_cast<ValueId>(values_.size()));
    values_.push_back({.name = outputs.size() == 1 ? name : fmt::format("{}.{}", name, i),
                       .spec = outputs[i], .producer = id, .output = static_cast<int>(i), .consumers = {}});
  }
  nodes_.push_back(std::move(node));
  return nodes_.back().outputs;
}

ValueId Graph::add(std::string name, std::shared_ptr<const Layer> layer, std::vector<ValueId> inputs) {
  const auto outputs = add_node(name, std::move(layer), std::move(inputs));
  if (outputs.size() != 1) throw InternalError(fmt::format("'{}' has {} outputs, 1 expected", name, outputs.size()));
  return outputs.front();
}

void Graph::add_loss(std::string name, std::shared_ptr<const Layer> layer, std::vector<ValueId> inputs) {
  if (!add_node(name, std::move(layer), std::move(inputs)).empty())
    throw InternalError(fmt::format("'{}' was added as a loss but has outputs", name));
}

std::size_t Graph::parameter_count() const noexcept {
  std::size_t n = 0;
  for (const auto& p : parameters_) n += p.shape.elements();
  return n;
}

namespace {

template <class Items>
int find(const Items& items, std::string_view name, std::string_view kind) {
  for (std::size_t i = 0; i < items.size(); ++i)
    if (items[i].name == name) return static_cast<int>(i);
  std::vector<std::string> names;
  for (const auto& item : items) names.push_back(item.name);
  const std::string_view nearest = nearest_name(name, names);
  throw UserError(fmt::format("no {} named {} in the graph{}", kind, quote(name),
                              nearest.empty() ? "" : fmt::format("; nearest is '{}'", nearest)));
}

}  // namespace

ValueId Graph::find_value(std::string_view name) const { return find(values_, name, "value"); }
NodeId Graph::find_node(std::string_view name) const { return find(nodes_, name, "layer"); }
ParameterId Graph::find_parameter(std::string_view name) const { return find(parameters_, name, "parameter"); }

}  // namespace gradflow
