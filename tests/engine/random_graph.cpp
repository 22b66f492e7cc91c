#include "engine/random_graph.h"

#include <fmt/format.h>

#include <algorithm>

namespace gradflow::test {
namespace {

std::vector<double> signed_numbers(std::mt19937& random, std::size_t n) {
  std::uniform_real_distribution<double> uniform(-1, 1);
  std::vector<double> r(n);
  for (double& x : r) x = uniform(random);
  return r;
}

}  // namespace

Graph random_graph(unsigned seed, int nodes) {
  std::mt19937 random(seed);
  const auto below = [&](std::size_t n) { return static_cast<std::size_t>(random() % n); };
  Graph g(DType::f64);
  std::vector<std::vector<ValueId>> pools;  // values of one size
  for (const std::int64_t n : {std::int64_t{3 + static_cast<std::int64_t>(below(30))}, std::int64_t{70}}) {
    pools.emplace_back();
    for (std::size_t i = 0; i < 1 + below(2); ++i)
      pools.back().push_back(g.input(fmt::format("in{}_{}", n, i), {{n}, DType::f64}));
  }
  for (int i = 0; i < nodes; ++i) {
    auto& pool = pools[below(pools.size())];
    // Mostly from the newest values, so that the graph is deep; sometimes from far back, so that lives are
    // long.
    const auto pick = [&] {
      return pool[below(4) ? pool.size() - 1 - below(std::min<std::size_t>(3, pool.size()))
                           : below(pool.size())];
    };
    const std::string name = fmt::format("n{:02}", i);
    switch (below(5)) {
      case 0: pool.push_back(g.add<toys::InPlaceTanh>(name, {pick()})); break;
      case 1: pool.push_back(g.add<toys::ScaledSine>(name, {pick()})); break;
      case 2:
        for (const ValueId y : g.add_node(name, std::make_shared<toys::Fork>(), {pick()})) pool.push_back(y);
        break;
      default: {
        std::vector<ValueId> inputs;
        for (std::size_t k = 0; k < 1 + below(4); ++k)
          if (const ValueId v = pick(); std::ranges::find(inputs, v) == inputs.end()) inputs.push_back(v);
        pool.push_back(g.add<toys::Blend>(name, std::move(inputs)));
      }
    }
  }
  const std::size_t values = g.values().size();
  for (std::size_t v = 0; v < values; ++v) {
    const Value& value = g.values()[v];
    if (!value.consumers.empty() || value.producer == kNobody) continue;
    // One of a fork's two outputs may stay unread; anything else must lead to a loss.
    const auto& siblings = g.node(value.producer).outputs;
    const bool other_is_read =
        std::ranges::any_of(siblings, [&](ValueId s) { return !g.value(s).consumers.empty(); });
    if (other_is_read && below(2)) continue;
    g.add_loss(fmt::format("loss{}", v),
               std::make_shared<toys::Cotangent>(signed_numbers(random, value.spec.elements())),
               {static_cast<ValueId>(v)});
  }
  return g;
}

PlanOptions random_options(const Graph& graph, unsigned seed) {
  std::mt19937 random(seed * 7919 + 1);
  const auto coin = [&](unsigned odds = 2) { return random() % odds == 0; };
  PlanOptions o;
  o.training = !coin(6);
  o.reuse = !coin(6);
  o.retain = coin(4);
  o.fuse_probes = !coin(3);
  if (o.training) o.update = static_cast<UpdatePlacement>(random() % 3);
  std::vector<int> consumers(graph.values().size());
  for (ValueId v = 0; v < static_cast<ValueId>(graph.values().size()); ++v)
    if (o.training && graph.value(v).producer == kNobody && coin()) o.input_gradients.push_back(v);
  // Which gradients exist follows from the graph; the plan refuses the others, so ask only where one must be.
  std::vector<bool> trained(graph.values().size()), reaches(graph.values().size());
  for (const ValueId v : o.input_gradients) trained[static_cast<std::size_t>(v)] = true;
  for (const Node& n : graph.nodes())
    for (const ValueId y : n.outputs) {
      bool any = !n.parameters.empty();
      for (const ValueId x : n.inputs) any = any || trained[static_cast<std::size_t>(x)];
      trained[static_cast<std::size_t>(y)] = any;
    }
  for (std::size_t i = graph.nodes().size(); i-- > 0;) {
    const Node& n = graph.nodes()[i];
    bool any = n.inference.is_loss;
    for (const ValueId y : n.outputs) any = any || reaches[static_cast<std::size_t>(y)];
    for (const ValueId x : n.inputs)
      if (any) reaches[static_cast<std::size_t>(x)] = true, ++consumers[static_cast<std::size_t>(x)];
  }
  for (ValueId v = 0; v < static_cast<ValueId>(graph.values().size()); ++v) {
    const std::size_t i = static_cast<std::size_t>(v);
    if (coin(3))
      o.probes.push_back(
          {.target = ProbeTarget::value, .id = v, .stats = coin(), .exponents = coin(), .alive = coin()});
    if (o.training && trained[i] && reaches[i] && coin(3))
      o.probes.push_back({.target = ProbeTarget::gradient,
                          .id = v,
                          .stats = coin(),
                          .exponents = coin(),
                          .split = consumers[i] > 1 && coin()});
  }
  for (ParameterId p = 0; p < static_cast<ParameterId>(graph.parameters().size()); ++p) {
    if (coin(3)) o.probes.push_back({.target = ProbeTarget::parameter, .id = p, .exponents = coin()});
    if (o.training && coin(3))
      o.probes.push_back({.target = ProbeTarget::parameter_gradient, .id = p, .exponents = coin()});
    if (o.update != UpdatePlacement::none && coin(3))
      o.probes.push_back({.target = ProbeTarget::update, .id = p});
  }
  return o;
}

}  // namespace gradflow::test
