#include "apps/plan/operands.h"
#include "gradflow/engine/index.h"

#include <fmt/format.h>

namespace gradflow::app {
namespace {

class Collector {
 public:
  Collector(const Graph& graph, const Plan& plan, std::span<const ProbeRequest> probes)
      : graph_(graph), plan_(plan), probes_(probes) {}

  LaunchOperands collect(const Launch& launch) const {
    LaunchOperands o;
    switch (launch.kind) {
      case LaunchKind::forward: forward(launch.node, o); break;
      case LaunchKind::backward: backward(launch.node, o); break;
      case LaunchKind::update: update(launch.node, o); break;
      default: probe(launch, o);
    }
    return o;
  }

 private:
  const Graph& graph_;
  const Plan& plan_;
  std::span<const ProbeRequest> probes_;

  static void put(std::vector<Operand>& list, const char* role, int buffer) {
    if (buffer != kNobody) list.push_back({role, buffer});
  }

  void forward(NodeId n, LaunchOperands& o) const {
    for (const ValueId v : graph_.node(n).inputs) put(o.reads, "x", plan_.value_buffer[at(v)]);
    for (const ValueId v : graph_.node(n).outputs) put(o.writes, "y", plan_.value_buffer[at(v)]);
    for (const int b : plan_.saved_buffers[at(n)]) put(o.writes, "saved", b);
    put(o.writes, "ws", plan_.forward_workspace[at(n)]);
  }

  void backward(NodeId n, LaunchOperands& o) const {
    const Node& node = graph_.node(n);
    for (std::size_t i = 0; i < node.outputs.size(); ++i) {
      put(o.reads, "dy", plan_.gradient_buffer[at(node.outputs[i])]);
      if (node.inference.backward_reads_output.contains(i))
        put(o.reads, "y", plan_.value_buffer[at(node.outputs[i])]);
    }
    for (std::size_t i = 0; i < node.inputs.size(); ++i) {
      if (node.inference.backward_reads_input.contains(i))
        put(o.reads, "x", plan_.value_buffer[at(node.inputs[i])]);
      const GradMode mode = plan_.modes[at(n)][i];
      const int dx = plan_.gradient_buffer[at(node.inputs[i])];
      if (mode == GradMode::accumulate) put(o.reads, "dx", dx);
      if (mode != GradMode::none) put(o.writes, "dx", dx);
    }
    for (const int b : plan_.saved_buffers[at(n)]) put(o.reads, "saved", b);
    for (const ParameterId p : node.parameters) put(o.writes, "dw", plan_.parameter_gradient_buffer[at(p)]);
    put(o.writes, "ws", plan_.backward_workspace[at(n)]);
    put(o.writes, "dz", plan_.backward_scratch[at(n)]);
  }

  void update(NodeId n, LaunchOperands& o) const {
    const auto all_of = [&](NodeId m) {
      for (const ParameterId p : graph_.node(m).parameters)
        put(o.reads, "dw", plan_.parameter_gradient_buffer[at(p)]);
    };
    if (n != kNobody) return all_of(n);
    for (NodeId m = 0; m < static_cast<NodeId>(graph_.nodes().size()); ++m) all_of(m);
  }

  void probe(const Launch& launch, LaunchOperands& o) const {
    const ProbeRequest& r = probes_[at(launch.probe)];
    const int snapshot = plan_.snapshot_buffer[at(launch.probe)];
    if (r.target == ProbeTarget::value) put(o.reads, "y", plan_.value_buffer[at(r.id)]);
    if (r.target == ProbeTarget::gradient) put(o.reads, "dy", plan_.gradient_buffer[at(r.id)]);
    if (r.target == ProbeTarget::parameter_gradient)
      put(o.reads, "dw", plan_.parameter_gradient_buffer[at(r.id)]);
    if (launch.kind == LaunchKind::snapshot) put(o.writes, "snapshot", snapshot);
    if (launch.kind == LaunchKind::split) put(o.reads, "snapshot", snapshot);
  }
};

}  // namespace

std::vector<LaunchOperands> operands_of(const Graph& graph, const Plan& plan,
                                        std::span<const ProbeRequest> probes) {
  const Collector collector(graph, plan, probes);
  std::vector<LaunchOperands> all;
  for (const Launch& launch : plan.launches) all.push_back(collector.collect(launch));
  return all;
}

std::string subject_of(const Launch& launch, const Graph& graph, std::span<const ProbeRequest> probes) {
  if (launch.probe != kNobody) {
    const ProbeRequest& r = probes[at(launch.probe)];
    const bool on_value = r.target == ProbeTarget::value || r.target == ProbeTarget::gradient;
    return fmt::format("{} of {}", name_of(r.target),
                       on_value ? graph.value(r.id).name : graph.parameter(r.id).name);
  }
  return launch.node == kNobody ? "all parameters" : graph.node(launch.node).name;
}

}  // namespace gradflow::app
