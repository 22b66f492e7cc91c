// Graph: what is computed, before anybody decides how.
//
// Nodes are added in order, so every input exists already and insertion order is a topological order.
// Shapes are inferred at once: a misfit is reported at the line that made it.
#pragma once

#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_set>
#include <vector>

#include "gradflow/engine/layer.h"
#include "gradflow/engine/tensor.h"

namespace gradflow {

using ValueId = int;
using NodeId = int;
using ParameterId = int;
using StateId = int;
inline constexpr int kNobody = -1;

struct Value {
  std::string name;        // of the node that makes it ("block07.linear"), or of the input
  TensorSpec spec;
  NodeId producer = kNobody;  // kNobody: an input of the graph, or fused away
  int output = 0;             // which output of the producer
  std::vector<NodeId> consumers;  // ascending; a node appears once per use
  bool fused_away = false;        // lay between two layers that became one: it never exists in memory

  bool is_input() const noexcept { return producer == kNobody && !fused_away; }
};

struct Node {
  std::string name;
  std::shared_ptr<const Layer> layer;
  std::vector<ValueId> inputs, outputs;
  std::vector<ValueId> between;  // fused away inside it, in the order in which forward comes to them
  std::vector<ParameterId> parameters;
  std::vector<StateId> states;
  Inference inference;
};

class Graph {
 public:
  // dtype: of every activation and its gradient, and of parameters too unless it is bf16: those are f32 then
  // (parameter_dtype()), and so are their gradients. f64 runs on the host only.
  Graph() = default;
  explicit Graph(DType dtype) : dtype_(dtype) {}

  ValueId input(std::string name, TensorSpec spec);
  // Adds a node and returns its outputs. Names are unique; UserError otherwise.
  std::vector<ValueId> add_node(std::string name, std::shared_ptr<const Layer> layer,
                                std::vector<ValueId> inputs);
  // The common case: a layer with exactly one output.
  ValueId add(std::string name, std::shared_ptr<const Layer> layer, std::vector<ValueId> inputs);
  // A layer with no output: a loss.
  void add_loss(std::string name, std::shared_ptr<const Layer> layer, std::vector<ValueId> inputs);

  template <class L, class... Args>
  ValueId add(std::string name, std::vector<ValueId> inputs, Args&&... args) {
    return add(std::move(name), std::make_shared<const L>(std::forward<Args>(args)...), std::move(inputs));
  }
  template <class L, class... Args>
  void add_loss(std::string name, std::vector<ValueId> inputs, Args&&... args) {
    add_loss(std::move(name), std::make_shared<const L>(std::forward<Args>(args)...), std::move(inputs));
  }

  DType dtype() const noexcept { return dtype_; }
  DType parameter_dtype() const noexcept { return arithmetic_type(dtype_); }
  std::span<const Node> nodes() const noexcept { return nodes_; }
  std::span<const Value> values() const noexcept { return values_; }
  std::span<const ParameterSpec> parameters() const noexcept { return parameters_; }  // full names
  std::span<const StateSpec> states() const noexcept { return states_; }
  const Node& node(NodeId n) const { return nodes_.at(static_cast<std::size_t>(n)); }
  const Value& value(ValueId v) const { return values_.at(static_cast<std::size_t>(v)); }
  const ParameterSpec& parameter(ParameterId p) const { return parameters_.at(static_cast<std::size_t>(p)); }
  std::size_t parameter_count() const noexcept;  // trainable scalars

  // The same computation with fewer passes over memory: where a layer is the only reader of another's only
  // output and the two can be one (Layer::fuse), they become one node, "bn1+relu". Values, parameters and states
  // keep their numbers and order. Values in `kept` stay, and those in `measured` where the layer that would take them
  // in cannot measure them (FusedStats::between), or not at less cost on a `host`.
  Graph fused(std::span<const ValueId> kept, std::span<const ValueId> measured = {}, bool host = false) const;

  // By name; UserError naming the nearest existing one if there is none.
  ValueId find_value(std::string_view name) const;
  NodeId find_node(std::string_view name) const;
  ParameterId find_parameter(std::string_view name) const;

 private:
  DType dtype_ = DType::f32;
  std::vector<Node> nodes_;
  std::vector<Value> values_;
  std::vector<ParameterSpec> parameters_;
  std::vector<StateSpec> states_;
  std::unordered_set<std::string> names_;
  void claim(const std::string& name);
};

}  // namespace gradflow
