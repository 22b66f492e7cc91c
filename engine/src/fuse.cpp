// Graph::fused: neighbors become one node where their layers say so.
#include <algorithm>

#include "gradflow/engine/graph.h"
#include "gradflow/engine/index.h"

namespace gradflow {
namespace {

std::string last_part(const std::string& name) {
  const std::size_t dot = name.rfind('.');
  return dot == std::string::npos ? name : name.substr(dot + 1);
}

bool any_twice(std::vector<ValueId> values) {
  std::ranges::sort(values);
  return std::ranges::adjacent_find(values) != values.end();
}

void append(auto& to, const auto& from) { to.insert(to.end(), from.begin(), from.end()); }

}  // namespace

Graph Graph::fused(std::span<const ValueId> kept, std::span<const ValueId> measured, bool host) const {
  Graph g = *this;
  std::vector<bool> keep(g.values_.size()), watched(g.values_.size()), gone(g.nodes_.size());
  for (const ValueId v : kept) keep.at(at(v)) = true;
  for (const ValueId v : measured) watched.at(at(v)) = true;

  // `first` and then the only reader of its output, in the reader's place; false if they stay two.
  const auto try_fuse = [&](const Node& first) -> NodeId {
    if (first.outputs.size() != 1) return kNobody;
    const ValueId between = first.outputs.front();
    const Value& value = g.values_[at(between)];
    if (keep[at(between)] || value.consumers.size() != 1) return kNobody;
    const NodeId id = value.consumers.front();
    Node& next = g.nodes_[at(id)];
    const auto operand =
        static_cast<std::size_t>(std::ranges::find(next.inputs, between) - next.inputs.begin());
    Node node = first;
    node.layer = first.layer->fuse(*next.layer, operand);
    if (!node.layer || next.outputs.size() != 1) return kNobody;
    node.between.push_back(between);
    append(node.between, next.between);
    const bool looked_at = std::ranges::any_of(node.between, [&](ValueId v) { return watched[at(v)]; });
    const FusedStats takes = node.layer->fused_stats();
    if (looked_at && (!takes.between || (host && takes.between_costs_host))) return kNobody;
    for (const ValueId v : next.inputs)
      if (v != between) node.inputs.push_back(v);
    if (any_twice(node.inputs)) return kNobody;  // its gradient would have two parts in one launch
    node.name = first.name + "+" + last_part(next.name);
    node.outputs = next.outputs;
    append(node.parameters, next.parameters);
    append(node.states, next.states);
    std::vector<TensorSpec> specs;
    for (const ValueId v : node.inputs) specs.push_back(g.value(v).spec);
    node.inference = node.layer->infer(specs);
    next = std::move(node);
    g.values_[at(between)].fused_away = true;
    return id;
  };
  for (NodeId n = 0; n < static_cast<NodeId>(g.nodes_.size()); ++n)
    gone[at(n)] = try_fuse(Node(g.nodes_[at(n)])) != kNobody;  // what it became is tried when its turn comes

  std::vector<Node> rest;
  for (std::size_t n = 0; n < g.nodes_.size(); ++n)
    if (!gone[n]) rest.push_back(std::move(g.nodes_[n]));
  g.nodes_ = std::move(rest);
  for (Value& v : g.values_) {
    v.producer = kNobody;
    v.consumers.clear();
  }
  for (NodeId n = 0; n < static_cast<NodeId>(g.nodes_.size()); ++n) {
    const Node& node = g.nodes_[at(n)];
    g.names_.insert(node.name);
    for (const ValueId v : node.outputs) g.values_[at(v)].producer = n;
    for (const ValueId v : node.inputs) g.values_[at(v)].consumers.push_back(n);
  }
  return g;
}

}  // namespace gradflow
