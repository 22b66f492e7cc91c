#include "apps/measure/print.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "apps/common/text_table.h"
#include "apps/report/json.h"
#include "gradflow/engine/version.h"

namespace gradflow::app {
namespace {

using Json = nlohmann::ordered_json;

std::string scientific(double x) { return x == 0 ? "0" : fmt::format("{:.2e}", x); }

std::string percent_of(const Stats& s, std::uint64_t part) {
  const double percent = 100 * s.fraction(part);
  return part == 0 ? "0" : percent < 0.1 ? "<0.1" : fmt::format("{:.1f}", percent);
}

std::string range_text(const TensorReading& t) {
  const auto range = exponent_range(t.exponents);
  return range ? fmt::format("{}..{}", range->low, range->high) : "-";
}

// outputs: what the layers computed, where saturation has a meaning.
void append_table(std::string& out, const char* title, const std::vector<TensorReading>& tensors,
                  bool outputs, std::size_t width) {
  bool saturated = false, dead = false, nonfinite = false;
  for (const TensorReading& t : tensors) {
    saturated |= outputs && (t.layer == "sigmoid" || t.layer == "tanh");
    dead |= t.dead.has_value();
    nonfinite |= t.stats.nonfinite > 0;
  }
  std::vector<TableColumn> columns = {{title, true, 16}, {"norm"},  {"mean"},   {"std"},
                                      {"max"},           {"zero%"}, {"denorm%"}};
  if (nonfinite) columns.push_back({"NaN/inf%"});
  if (saturated) columns.push_back({"saturated%"});
  if (dead) columns.push_back({"dead%"});
  columns.push_back({"exponents"});
  TextTable table(columns);
  for (const TensorReading& t : tensors) {
    const Stats& s = t.stats;
    std::vector<std::string> cells = {t.name,
                                      scientific(s.norm()),
                                      scientific(s.mean()),
                                      scientific(s.standard_deviation()),
                                      scientific(s.max_abs()),
                                      percent_of(s, s.zeros),
                                      percent_of(s, s.denormals)};
    if (nonfinite) cells.push_back(percent_of(s, s.nonfinite));
    if (saturated)
      cells.push_back(t.layer == "sigmoid" || t.layer == "tanh" ? percent_of(s, s.saturated) : "");
    if (dead) cells.push_back(t.dead ? fmt::format("{:.1f}", 100 * *t.dead) : "");
    cells.push_back(range_text(t));
    table.add(std::move(cells));
  }
  out += table.text(width) + "\n";
}

Json json_of(const std::vector<TensorReading>& tensors) {
  Json list = Json::array();
  for (const TensorReading& t : tensors) {
    const Stats& s = t.stats;
    Json shape = Json::array();
    for (std::size_t i = 0; i < t.shape.rank(); ++i) shape.push_back(t.shape[i]);
    Json j = {{"name", t.name},
              {"layer", t.layer},
              {"shape", shape},
              {"count", s.count},
              {"norm", s.norm()},
              {"mean", s.mean()},
              {"std", s.standard_deviation()},
              {"max", s.max_abs()},
              {"zeros", s.zeros},
              {"denormals", s.denormals},
              {"nonfinite", s.nonfinite},
              {"saturated", s.saturated}};
    if (t.dead) j["dead"] = *t.dead;
    const auto range = exponent_range(t.exponents);
    j["first_exponent"] = range ? Json(range->low) : Json();
    j["exponents"] = Json::array();
    for (int e = range ? range->low : 1; range && e <= range->high; ++e)
      j["exponents"].push_back(t.exponents[static_cast<std::size_t>(e - kMinExponent + 1)]);
    list.push_back(std::move(j));
  }
  return list;
}

}  // namespace

std::string measurement_tables(const Measurement& m, std::size_t width) {
  std::string out;
  append_table(out, "activation", m.activations, true, width);
  append_table(out, "gradient of", m.activation_gradients, false, width);
  append_table(out, "parameter", m.parameters, false, width);
  append_table(out, "gradient of", m.parameter_gradients, false, width);
  out +=
      "max: of the absolute values. exponents: floor(log2|x|) of the smallest and largest element that is "
      "not zero.\n";
  return out;
}

std::string measurement_json(const Measurement& m, const NetworkOptions& o, const std::string& weights, const Network& n) {
  const kernels::DeviceInfo& device = n.device->info();
  return json_text({{"schema", "gradflow-measure/1"},
                    {"version", version()},
                    {"git_revision", git_revision()},
                    {"model", o.model},
                    {"data", o.data},
                    {"batch", o.batch},
                    {"seed", o.seed},
                    {"weights", weights},
                    {"dtype", o.precision.dtype},
                    {"device", device.name},
                    {"device_model", device.model},
                    {"libraries", device.libraries},
                    {"precision", device.precision},
                    {"parameter_count", n.model.graph.parameter_count()},
                    {"loss", m.loss},
                    {"accuracy", m.accuracy},
                    {"activations", json_of(m.activations)},
                    {"activation_gradients", json_of(m.activation_gradients)},
                    {"parameters", json_of(m.parameters)},
                    {"parameter_gradients", json_of(m.parameter_gradients)}});
}

}  // namespace gradflow::app
