// From a graph to the list of launches: which gradients exist, where probes go, in what order all runs.
#include <fmt/format.h>

#include <algorithm>

#include "gradflow/engine/parameters.h"
#include "plan_builder.h"
#include "gradflow/engine/index.h"
#include "gradflow/kernels/error.h"

namespace gradflow {
namespace {

Cost read_of(const TensorSpec& spec) { return {static_cast<double>(spec.bytes()), 0}; }

}  // namespace

PlanBuilder::PlanBuilder(const Graph& graph, const PlanOptions& options, Backend& backend)
    : graph_(graph), options_(options), backend_(backend) {
  const std::size_t values = graph.values().size(), nodes = graph.nodes().size();
  contributors_.resize(values);
  needs_gradient_.resize(values);
  value_reads_.resize(values);
  gradient_reads_.resize(values);
  runs_backward_.resize(nodes);
  forward_time_.assign(nodes, kNobody);
  backward_time_.assign(nodes, kNobody);
  node_done_.assign(nodes, kNobody);
  plan.modes.resize(nodes);
  for (const auto& p : graph.parameters()) {
    plan.parameter_bytes += TensorSpec{p.shape, graph.parameter_dtype()}.bytes();
    if (has_copy(graph, p)) plan.parameter_copy_bytes += TensorSpec{p.shape, graph.dtype()}.bytes();
  }
  for (const auto& s : graph.states()) plan.state_bytes += s.spec.bytes();
}

void PlanBuilder::find_gradient_flow() {
  const auto nodes = graph_.nodes();
  for (NodeId n = 0; n < static_cast<NodeId>(nodes.size()); ++n)
    plan.modes[at(n)].assign(nodes[at(n)].inputs.size(), GradMode::none);
  if (!options_.training) return;

  for (const ValueId v : options_.input_gradients) {
    if (!graph_.value(v).is_input())
      throw UserError(fmt::format("'{}' is not an input of the graph: its gradient needs no asking for", graph_.value(v).name));
    needs_gradient_[at(v)] = true;
  }
  for (const Node& node : nodes) {
    bool needs = !node.parameters.empty();
    for (std::size_t i = 0; i < node.inputs.size(); ++i)
      needs |= node.inference.differentiable.contains(i) && needs_gradient_[at(node.inputs[i])];
    for (const ValueId y : node.outputs) needs_gradient_[at(y)] = needs;
  }

  bool any_loss = false;
  for (NodeId n = static_cast<NodeId>(nodes.size()) - 1; n >= 0; --n) {
    const Node& node = nodes[at(n)];
    any_loss |= node.inference.is_loss;
    bool arrives = node.inference.is_loss;
    for (const ValueId y : node.outputs) arrives |= has_gradient(y);
    if (!arrives) {
      if (!node.parameters.empty())
        throw UserError(fmt::format("parameters of '{}' do not reach a loss: connect its output or leave it out", node.name));
      continue;
    }
    bool useful = !node.parameters.empty();
    for (std::size_t i = 0; i < node.inputs.size(); ++i) {
      const ValueId v = node.inputs[i];
      if (!node.inference.differentiable.contains(i) || !needs_gradient_[at(v)]) continue;
      auto& contributors = contributors_[at(v)];
      if (!contributors.empty() && contributors.back() == n)
        throw UserError(fmt::format("layer '{}' reads '{}' twice: its gradient parts would overlap", node.name, graph_.value(v).name));
      plan.modes[at(n)][i] = contributors.empty() ? GradMode::overwrite : GradMode::accumulate;
      contributors.push_back(n);
      useful = true;
    }
    runs_backward_[at(n)] = useful;
  }
  if (!any_loss) throw UserError("the graph has no loss: a training plan needs one to start backward from");
}

PlanBuilder::Between PlanBuilder::between(ValueId v) const {
  if (!graph_.value(v).fused_away) return {};
  for (NodeId n = 0; n < static_cast<NodeId>(graph_.nodes().size()); ++n) {
    const auto& inside = graph_.node(n).between;
    const auto found = std::ranges::find(inside, v);
    if (found != inside.end()) return {n, static_cast<int>(found - inside.begin())};
  }
  return {};
}

void PlanBuilder::check(const ProbeRequest& r) const {
  const bool on_value = r.target == ProbeTarget::value || r.target == ProbeTarget::gradient;
  const int limit = static_cast<int>(on_value ? graph_.values().size() : graph_.parameters().size());
  if (r.id < 0 || r.id >= limit)
    throw UserError(fmt::format("a probe on {} {}: the graph has 0..{}", name_of(r.target), r.id, limit - 1));
  const std::string& name = on_value ? graph_.value(r.id).name : graph_.parameter(r.id).name;
  const auto refuse = [&](const char* why) {
    throw UserError(fmt::format("a probe on the {} of '{}' cannot run: {}", name_of(r.target), name, why));
  };
  bool gradient = r.target == ProbeTarget::gradient && has_gradient(r.id);
  if (on_value && graph_.value(r.id).fused_away) {
    const NodeId inside = between(r.id).node;
    const bool measured = inside != kNobody && graph_.node(inside).layer->fused_stats().between;
    if (!measured || !options_.fuse_probes || r.alive || r.split) refuse("it lies inside a fused layer and is never in memory");
    gradient = runs_backward_[at(inside)];
  }
  if (r.target == ProbeTarget::gradient && !gradient) refuse("it has no gradient in this plan");
  if (r.target == ProbeTarget::parameter_gradient && !options_.training) refuse("the plan is forward only");
  if (r.target == ProbeTarget::update && options_.update == UpdatePlacement::none) refuse("the plan has no optimizer");
  if (r.target == ProbeTarget::update && r.exponents) refuse("updates have scalars only");
  if (r.alive && r.target != ProbeTarget::value) refuse("only a value has units that can be dead");
  if (r.split && (r.target != ProbeTarget::gradient || contributors_[at(r.id)].size() < 2))
    refuse("a split needs the gradient of a value with several consumers");
  if (on_value && graph_.value(r.id).spec.dtype != graph_.dtype()) refuse("it holds no floating-point numbers");
}

ProbePlace PlanBuilder::place(const ProbeRequest& r) const {
  using Where = ProbePlace::Where;
  const ProbePlace own{Where::own_launch, kNobody};
  if (r.target == ProbeTarget::update) return {Where::update, kNobody};
  if (!options_.fuse_probes) return own;
  if (r.target == ProbeTarget::parameter || r.target == ProbeTarget::parameter_gradient)
    return options_.update == UpdatePlacement::none ? own : ProbePlace{Where::update, kNobody};

  const Value& value = graph_.value(r.id);
  if (value.fused_away) {
    const Between inside = between(r.id);
    return {r.target == ProbeTarget::value ? Where::forward_between : Where::backward_between, inside.node, inside.place};
  }
  const auto is_x = [&](NodeId n) {
    return graph_.node(n).inputs.at(at(graph_.node(n).layer->fused_stats().input)) == r.id;
  };
  const auto fused = [&](NodeId n) { return graph_.node(n).layer->fused_stats(); };
  if (r.target == ProbeTarget::value) {
    if (value.producer != kNobody && value.output == 0 && fused(value.producer).y) return {Where::forward_y, value.producer};
    for (const NodeId n : value.consumers)
      if (fused(n).x && is_x(n)) return {Where::forward_x, n};
    return own;
  }
  const NodeId last = contributors_[at(r.id)].back();
  if (fused(last).dx && is_x(last)) return {Where::backward_dx, last};
  if (value.producer != kNobody && value.output == 0 && fused(value.producer).dy && runs_backward_[at(value.producer)])
    return {Where::backward_dy, value.producer};
  return own;
}

void PlanBuilder::place_probes() {
  value_probes_.resize(graph_.values().size());
  gradient_probes_.resize(graph_.values().size());
  parameter_probes_.resize(graph_.parameters().size());
  for (int i = 0; i < static_cast<int>(options_.probes.size()); ++i) {
    const ProbeRequest& r = options_.probes[at(i)];
    check(r);
    auto& same_id = (r.target == ProbeTarget::value      ? value_probes_
                     : r.target == ProbeTarget::gradient ? gradient_probes_
                                                         : parameter_probes_)[at(r.id)];
    const ProbePlace own{ProbePlace::Where::own_launch, kNobody}, ride = place(r);
    // A pass has room for one sink: a second request for the same scalars, or histogram, gets a launch of its own.
    const auto asked_before = [&](bool ProbeRequest::*what) {
      return std::ranges::any_of(same_id, [&](int j) {
        const ProbeRequest& earlier = options_.probes[at(j)];
        return earlier.target == r.target && earlier.*what;
      });
    };
    const bool taken = asked_before(&ProbeRequest::stats);
    if (((r.stats && taken) || (r.exponents && asked_before(&ProbeRequest::exponents))) && ride.between != kNobody)
      throw UserError(fmt::format("a probe on the {} of '{}' is asked for twice, but it lies inside a fused layer and is never in memory",
                                  name_of(r.target), graph_.value(r.id).name));
    if (r.target == ProbeTarget::update && r.stats && taken)
      throw UserError(fmt::format("a probe on the update of '{}' is asked for twice: once is enough", graph_.parameter(r.id).name));
    plan.probe_places.push_back(!r.stats ? ProbePlace{} : taken ? own : ride);
    const bool rides = ride.node != kNobody && !asked_before(&ProbeRequest::exponents);  // an update counts no exponents
    plan.exponent_places.push_back(!r.exponents ? ProbePlace{} : rides ? ride : own);
    same_id.push_back(i);
  }
  plan.snapshot_buffer.assign(options_.probes.size(), kNobody);
  snapshot_time_.assign(options_.probes.size(), kNobody);
  split_time_.assign(options_.probes.size(), kNobody);
}

void PlanBuilder::push(LaunchKind kind, NodeId node, int probe, Cost cost) {
  plan.launches.push_back({.kind = kind, .node = node, .probe = probe, .cost = cost});
}

void PlanBuilder::push_value_probes(ValueId v) {
  for (const int i : value_probes_[at(v)]) {
    const ProbeRequest& r = options_.probes[at(i)];
    const auto launch = [&](LaunchKind kind) {
      value_reads_[at(v)].push_back(static_cast<int>(plan.launches.size()));
      push(kind, kNobody, i, read_of(graph_.value(v).spec));
    };
    if (plan.probe_places[at(i)].where == ProbePlace::Where::own_launch) launch(LaunchKind::stats);
    if (plan.exponent_places[at(i)].where == ProbePlace::Where::own_launch) launch(LaunchKind::exponents);
    if (r.alive) launch(LaunchKind::alive);
  }
}

void PlanBuilder::push_gradient_probes(ValueId v, NodeId after) {
  const bool first = contributors_[at(v)].front() == after, last = contributors_[at(v)].back() == after;
  if (!first && !last) return;
  for (const int i : gradient_probes_[at(v)]) {
    const ProbeRequest& r = options_.probes[at(i)];
    const auto launch = [&](LaunchKind kind, double passes) {
      const int time = static_cast<int>(plan.launches.size());
      gradient_reads_[at(v)].push_back(time);
      push(kind, kNobody, i, {passes * static_cast<double>(graph_.value(v).spec.bytes()), 0});
      return time;
    };
    if (first && r.split) snapshot_time_[at(i)] = launch(LaunchKind::snapshot, 2);
    if (!last) continue;
    if (plan.probe_places[at(i)].where == ProbePlace::Where::own_launch) launch(LaunchKind::stats, 1);
    if (plan.exponent_places[at(i)].where == ProbePlace::Where::own_launch) launch(LaunchKind::exponents, 1);
    if (r.split) split_time_[at(i)] = launch(LaunchKind::split, 3);
  }
}

void PlanBuilder::push_parameter_probes(NodeId n, ProbeTarget target) {
  for (const ParameterId p : graph_.node(n).parameters) {
    const Cost cost = read_of({graph_.parameter(p).shape, graph_.parameter_dtype()});
    for (const int i : parameter_probes_[at(p)]) {
      if (options_.probes[at(i)].target != target) continue;
      if (plan.probe_places[at(i)].where == ProbePlace::Where::own_launch) push(LaunchKind::stats, n, i, cost);
      if (plan.exponent_places[at(i)].where == ProbePlace::Where::own_launch) push(LaunchKind::exponents, n, i, cost);
    }
  }
}

void PlanBuilder::push_update(NodeId n) {
  double elements = 0, copied = 0;
  const auto count = [&](NodeId m) {
    for (const ParameterId p : graph_.node(m).parameters) {
      const double size = static_cast<double>(graph_.parameter(p).shape.elements());
      elements += size;
      if (has_copy(graph_, graph_.parameter(p))) copied += size;
    }
  };
  if (n != kNobody) count(n);
  else for (NodeId m = 0; m < static_cast<NodeId>(graph_.nodes().size()); ++m) count(m);
  // Momentum SGD's traffic: w and the moment read and written, dw read, and the copy of w written.
  const auto bytes = [](DType t) { return static_cast<double>(size_of(t)); };
  push(LaunchKind::update, n, kNobody,
       {5 * elements * bytes(graph_.parameter_dtype()) + copied * bytes(graph_.dtype()), 4 * elements});
}

void PlanBuilder::list_launches() {
  const auto nodes = graph_.nodes();
  for (ValueId v = 0; v < static_cast<ValueId>(graph_.values().size()); ++v)
    if (graph_.value(v).is_input()) push_value_probes(v);
  for (NodeId n = 0; n < static_cast<NodeId>(nodes.size()); ++n) {
    push_parameter_probes(n, ProbeTarget::parameter);
    const int time = static_cast<int>(plan.launches.size());
    forward_time_[at(n)] = time;
    for (const ValueId v : nodes[at(n)].inputs) value_reads_[at(v)].push_back(time);
    push(LaunchKind::forward, n, kNobody, nodes[at(n)].inference.forward);
    for (const ValueId v : nodes[at(n)].outputs) push_value_probes(v);
  }
  plan.first_backward = static_cast<int>(plan.launches.size());
  if (!options_.training) return;

  for (NodeId n = static_cast<NodeId>(nodes.size()) - 1; n >= 0; --n) {
    if (!runs_backward_[at(n)]) continue;
    const Node& node = nodes[at(n)];
    const int time = static_cast<int>(plan.launches.size());
    backward_time_[at(n)] = time;
    for (std::size_t i = 0; i < node.inputs.size(); ++i)
      if (node.inference.backward_reads_input.contains(i)) value_reads_[at(node.inputs[i])].push_back(time);
    for (std::size_t i = 0; i < node.outputs.size(); ++i) {
      if (node.inference.backward_reads_output.contains(i)) value_reads_[at(node.outputs[i])].push_back(time);
      gradient_reads_[at(node.outputs[i])].push_back(time);
    }
    Cost cost = node.inference.backward;
    for (std::size_t i = 0; i < node.inference.dx_costs.size(); ++i)
      if (plan.modes[at(n)][i] == GradMode::none) {
        cost.bytes -= node.inference.dx_costs[i].bytes;
        cost.flops -= node.inference.dx_costs[i].flops;
      }
    push(LaunchKind::backward, n, kNobody, cost);
    for (std::size_t i = 0; i < node.inputs.size(); ++i)
      if (plan.modes[at(n)][i] != GradMode::none) push_gradient_probes(node.inputs[i], n);
    push_parameter_probes(n, ProbeTarget::parameter_gradient);
    if (options_.update == UpdatePlacement::immediate && !node.parameters.empty()) push_update(n);
    node_done_[at(n)] = static_cast<int>(plan.launches.size()) - 1;
  }
  if (options_.update == UpdatePlacement::at_end) push_update(kNobody);
}

}  // namespace gradflow
