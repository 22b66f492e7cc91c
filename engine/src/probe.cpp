#include "gradflow/engine/probe.h"

#include <cmath>
#include <set>
#include <tuple>

namespace gradflow {

const char* name_of(ProbeTarget target) noexcept {
  switch (target) {
    case ProbeTarget::value: return "value";
    case ProbeTarget::gradient: return "gradient";
    case ProbeTarget::parameter: return "parameter";
    case ProbeTarget::parameter_gradient: return "parameter gradient";
    case ProbeTarget::update: return "update";
  }
  return "?";
}

double GradientSplit::cosine() const noexcept {
  const double norms = first.norm() * rest.norm();
  return norms > 0 ? dot / norms : std::nan("");
}

Graph fused_for(const Graph& graph, std::span<const ProbeRequest> probes, bool host, bool fuse_probes) {
  std::vector<ValueId> kept, measured;
  std::set<std::tuple<ProbeTarget, int, bool>> asked;  // target, id, and whether exponents
  for (const ProbeRequest& r : probes) {
    const bool on_value = r.target == ProbeTarget::value || r.target == ProbeTarget::gradient;
    if (!on_value || r.id < 0 || r.id >= static_cast<int>(graph.values().size())) continue;
    bool rides = fuse_probes && !r.alive && !r.split;
    if (r.stats) rides = asked.emplace(r.target, r.id, false).second && rides;
    if (r.exponents) rides = asked.emplace(r.target, r.id, true).second && rides;
    (rides ? measured : kept).push_back(r.id);
  }
  return graph.fused(kept, measured, host);
}

std::vector<ProbeRequest> all_scalar_probes(const Graph& graph, bool training, bool with_updates) {
  std::vector<ProbeRequest> probes;
  const auto add = [&](ProbeTarget target, int id) { probes.push_back({.target = target, .id = id}); };
  // A value has a gradient if a parameter lies before it and a loss behind it; in a training graph every
  // node with a parameter reaches a loss, and so does whatever lies between.
  std::vector<bool> trained(graph.values().size()), reaches(graph.values().size());
  for (const Node& node : graph.nodes()) {
    bool any = !node.parameters.empty();
    for (std::size_t i = 0; i < node.inputs.size(); ++i)
      any |= node.inference.differentiable.contains(i) && trained[static_cast<std::size_t>(node.inputs[i])];
    for (const ValueId y : node.outputs) trained[static_cast<std::size_t>(y)] = any;
  }
  for (std::size_t n = graph.nodes().size(); n-- > 0;) {
    const Node& node = graph.nodes()[n];
    bool arrives = node.inference.is_loss;
    for (const ValueId y : node.outputs) arrives = arrives || reaches[static_cast<std::size_t>(y)];
    for (std::size_t i = 0; i < node.inputs.size(); ++i)
      if (arrives && node.inference.differentiable.contains(i)) reaches[static_cast<std::size_t>(node.inputs[i])] = true;
  }
  for (const Node& node : graph.nodes())
    for (const ValueId y : node.outputs) {
      add(ProbeTarget::value, y);
      if (training && trained[static_cast<std::size_t>(y)] && reaches[static_cast<std::size_t>(y)]) add(ProbeTarget::gradient, y);
    }
  for (ParameterId p = 0; p < static_cast<ParameterId>(graph.parameters().size()); ++p) {
    add(ProbeTarget::parameter, p);
    if (training) add(ProbeTarget::parameter_gradient, p);
    if (training && with_updates) add(ProbeTarget::update, p);
  }
  return probes;
}

}  // namespace gradflow
