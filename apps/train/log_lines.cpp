#include "apps/train/log_lines.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "apps/study/layer_probes.h"
#include "gradflow/engine/version.h"

namespace gradflow::app {
namespace {

double epoch_of(const Session& s, std::int64_t step) {
  return static_cast<double>(step) / static_cast<double>(s.steps_per_epoch);
}

}  // namespace

JsonLine start_line(const Session& s) {
  const auto& device = s.device->info();
  JsonLine line;
  line.add("event", "start").add("model", s.settings.model.text).add("data", s.settings.data);
  line.add("optimizer", describe(s.settings.optimizer)).add("schedule", s.settings.schedule.text());
  line.add("augmentation", s.settings.augmentation.text);
  line.add("batch", s.settings.batch).add("seed", s.settings.seed).add("steps_per_epoch", s.steps_per_epoch);
  line.add("parameters", s.model.graph.parameter_count());
  line.add("dtype", name_of(s.settings.dtype));
  line.add("device", device.name).add("device_model", device.model).add("precision", device.precision);
  line.add("fused", s.fused);
  return line.add("version", version()).add("git_revision", git_revision());
}

JsonLine step_line(const Session& s, std::int64_t step, const kernels::LossResult& r) {
  const double rows = static_cast<double>(r.rows);
  return JsonLine()
      .add("event", "step")
      .add("step", step)
      .add("epoch", epoch_of(s, step))
      .add("loss", r.loss_sum / rows)
      .add("accuracy", static_cast<double>(r.correct) / rows)
      .add("learning_rate", s.learning_rate(step - 1));
}

JsonLine held_out_line(const Session& s, std::int64_t step, const Evaluation& e, bool best) {
  return JsonLine()
      .add("event", "held_out")
      .add("step", step)
      .add("epoch", epoch_of(s, step))
      .add("loss", e.loss)
      .add("accuracy", e.accuracy)
      .add("best", best);
}

std::vector<LayerRow> rows_of(const Model& model, const std::vector<ProbeReading>& readings) {
  LayerProbes probes(model, true);
  probes.add(readings);
  return probes.rows();
}

JsonLine layers_line(Session& s, std::int64_t step, const std::vector<ProbeReading>& readings) {
  const auto& requests = s.probed().options().probes;
  const std::vector<LayerRow> rows = rows_of(s.model, readings);
  std::map<std::pair<ProbeTarget, int>, double> norms;
  for (std::size_t i = 0; i < requests.size(); ++i)
    norms[{requests[i].target, requests[i].id}] = readings[i].stats.norm();

  nlohmann::json names = nlohmann::json::array(), first = nlohmann::json::array(), shares = nlohmann::json::array();
  std::vector<double> values, gradients, weights, weight_gradients, updates;
  for (const WeightLayer& layer : s.model.layers) {
    names.push_back(layer.name);
    values.push_back(norms.at({ProbeTarget::value, layer.z}));
    gradients.push_back(norms.at({ProbeTarget::gradient, layer.z}));
    weights.push_back(norms.at({ProbeTarget::parameter, layer.weight}));
    weight_gradients.push_back(norms.at({ProbeTarget::parameter_gradient, layer.weight}));
    updates.push_back(norms.at({ProbeTarget::update, layer.weight}));
  }
  const auto list = [](const std::vector<double>& v) { return std::span<const double>(v); };
  JsonLine line;
  line.add("event", "layers").add("step", step).add_json("layer", names.dump());
  line.add("value", list(values)).add("gradient", list(gradients)).add("weight", list(weights));
  line.add("weight_gradient", list(weight_gradients)).add("update", list(updates));
  for (const auto& [name, column] : kMoreColumns) {
    std::vector<double> numbers;
    for (const LayerRow& row : rows) numbers.push_back(row.*column);
    if (std::ranges::any_of(numbers, [](double x) { return std::isfinite(x); })) line.add(name, list(numbers));
  }
  for (const LayerRow& row : rows) {
    first.push_back(row.first_exponent);
    nlohmann::json bins = nlohmann::json::array();
    for (const double share : row.exponent_shares) bins.push_back(std::llround(share * 1e6));
    shares.push_back(std::move(bins));
  }
  return line.add_json("exponents", nlohmann::json{{"first", first}, {"shares_ppm", shares}}.dump());
}

JsonLine nonfinite_line(std::int64_t step, std::int64_t first_step, const std::optional<NonFinite>& where) {
  return JsonLine()
      .add("event", "nonfinite")
      .add("step", step)
      .add("first_step", first_step)
      .add("layer", where ? where->layer : "loss")
      .add("tensor", where ? where->tensor : "loss");
}

}  // namespace gradflow::app
