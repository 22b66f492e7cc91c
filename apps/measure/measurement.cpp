#include "apps/measure/measurement.h"

#include <algorithm>

namespace gradflow::app {

std::vector<ProbeRequest> measuring_probes(const Model& model) {
  std::vector<ProbeRequest> probes = all_scalar_probes(model.graph, true, false);
  for (ProbeRequest& r : probes) {
    r.exponents = true;
    if (r.target != ProbeTarget::value) continue;
    const NodeId producer = model.graph.value(r.id).producer;
    r.alive =
        producer != kNobody && model.graph.node(producer).layer->fused_stats().output_op == PointwiseId::relu;
  }
  return probes;
}

Measurement measure(Executor& executor) {
  executor.take_loss();
  executor.reset_alive();
  executor.forward();
  executor.backward();
  const kernels::LossResult result = executor.take_loss();
  const std::vector<ProbeReading> readings = executor.read_probes();

  const Graph& graph = executor.graph();
  std::vector<std::string> owner(graph.parameters().size());  // layer type by parameter
  for (const Node& node : graph.nodes())
    for (const ParameterId p : node.parameters) owner[static_cast<std::size_t>(p)] = node.layer->type();

  Measurement m;
  const double rows = static_cast<double>(std::max<std::uint64_t>(1, result.rows));
  m.loss = result.loss_sum / rows;
  m.accuracy = static_cast<double>(result.correct) / rows;
  for (std::size_t i = 0; i < readings.size(); ++i) {
    const ProbeRequest& r = executor.options().probes[i];
    TensorReading t;
    t.stats = readings[i].stats;
    t.exponents = readings[i].exponents;
    if (r.target == ProbeTarget::value || r.target == ProbeTarget::gradient) {
      const Value& value = graph.value(r.id);
      t.name = value.name;
      t.layer = value.producer == kNobody ? "input" : graph.node(value.producer).layer->type();
      t.shape = value.spec.shape;
    } else {
      t.name = graph.parameter(r.id).name;
      t.layer = owner[static_cast<std::size_t>(r.id)];
      t.shape = graph.parameter(r.id).shape;
    }
    if (r.alive) {
      const auto alive = executor.read_alive(static_cast<int>(i));
      const auto dead = std::ranges::count(alive, std::uint8_t{0});
      t.dead = alive.empty() ? 0.0 : static_cast<double>(dead) / static_cast<double>(alive.size());
    }
    auto& list = r.target == ProbeTarget::value       ? m.activations
                 : r.target == ProbeTarget::gradient  ? m.activation_gradients
                 : r.target == ProbeTarget::parameter ? m.parameters
                                                      : m.parameter_gradients;
    list.push_back(std::move(t));
  }
  return m;
}

std::optional<ExponentRange> exponent_range(const std::vector<std::uint64_t>& counts) {
  std::optional<ExponentRange> range;
  for (std::size_t bin = 1; bin <= kFiniteBins && bin < counts.size(); ++bin) {
    if (!counts[bin]) continue;
    const int exponent = kMinExponent + static_cast<int>(bin) - 1;
    range = {range ? range->low : exponent, exponent};
  }
  return range;
}

}  // namespace gradflow::app
