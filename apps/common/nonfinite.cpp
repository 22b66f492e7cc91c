#include "apps/common/nonfinite.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <numeric>

namespace gradflow::app {
namespace {

// When a tensor comes to be in a step, as something to sort by.
using Moment = std::array<int, 3>;  // forward or backward, node in the order of that pass, within the node

class Timetable {
 public:
  explicit Timetable(const Graph& graph) : graph_(graph), owner_(graph.parameters().size(), kNobody) {
    for (NodeId n = 0; n < static_cast<NodeId>(graph.nodes().size()); ++n)
      for (const ParameterId p : graph.node(n).parameters) owner_[static_cast<std::size_t>(p)] = n;
  }

  Moment moment(const ProbeRequest& r) const {
    switch (r.target) {
      case ProbeTarget::parameter: return {0, owner(r.id), 0};
      case ProbeTarget::value: return {0, graph_.value(r.id).producer, 1};
      case ProbeTarget::gradient: {  // complete when the earliest consumer has added its part
        const auto& consumers = graph_.value(r.id).consumers;
        return {1, consumers.empty() ? 0 : -consumers.front(), 0};
      }
      case ProbeTarget::parameter_gradient: return {1, -owner(r.id), 1};
      case ProbeTarget::update: return {1, -owner(r.id), 2};
    }
    return {};
  }

  NodeId owner(ParameterId p) const { return owner_[static_cast<std::size_t>(p)]; }

 private:
  const Graph& graph_;
  std::vector<NodeId> owner_;
};

NonFinite describe(const Graph& graph, const Timetable& times, const ProbeRequest& r) {
  const bool of_value = r.target == ProbeTarget::value || r.target == ProbeTarget::gradient;
  NonFinite result;
  const std::string& name = of_value ? graph.value(r.id).name : graph.parameter(r.id).name;
  result.layer = of_value ? name : graph.node(times.owner(r.id)).name;
  switch (r.target) {
    case ProbeTarget::value: result.tensor = "output of " + name; break;
    case ProbeTarget::parameter: result.tensor = name; break;
    case ProbeTarget::gradient:
    case ProbeTarget::parameter_gradient: result.tensor = "gradient of " + name; break;
    case ProbeTarget::update: result.tensor = "update of " + name; break;
  }
  return result;
}

}  // namespace

std::optional<NonFinite> first_nonfinite(const Graph& graph, std::span<const ProbeRequest> requests,
                                         const std::vector<std::vector<Stats>>& history) {
  const Timetable times(graph);
  std::vector<std::size_t> order(requests.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::ranges::stable_sort(order, {}, [&](std::size_t i) { return times.moment(requests[i]); });
  for (std::size_t step = 0; step < history.size(); ++step) {
    for (const std::size_t i : order) {
      const Stats& stats = history[step][i];
      if (stats.nonfinite == 0) continue;
      NonFinite found = describe(graph, times, requests[i]);
      found.history_index = step;
      found.count = stats.nonfinite;
      found.of = stats.count;
      return found;
    }
  }
  return std::nullopt;
}

}  // namespace gradflow::app
