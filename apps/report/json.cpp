#include "apps/report/json.h"

#include <algorithm>
#include <cmath>

#include "apps/report/columns.h"
#include "apps/report/numbers.h"
#include "apps/study/pair_claims.h"
#include "gradflow/kernels/error.h"

namespace gradflow::app {
namespace {

using Json = nlohmann::ordered_json;

Json number(double value) {
  const double rounded = round_digits(value);
  return std::isfinite(rounded) ? Json(rounded) : Json(nullptr);
}

// The histograms of one moment.
Json exponents_json(const Moment& moment) {
  Json first = Json::array();
  Json shares = Json::array();
  bool any = false;
  for (const LayerRow& row : moment.layers) {
    any = any || !row.exponent_shares.empty();
    first.push_back(row.first_exponent);
    shares.push_back(shares_ppm(row.exponent_shares));
  }
  return any ? Json{{"first", first}, {"shares_ppm", shares}} : Json(nullptr);
}

Json moment_json(const Moment& moment) {
  Json layers = Json::object();
  for (const LayerColumn& column : layer_columns()) {
    Json values = Json::array();
    for (const LayerRow& row : moment.layers) values.push_back(number(row.*column.value));
    // A column that nobody measured is left out.
    const bool measured =
        std::any_of(values.begin(), values.end(), [](const Json& v) { return !v.is_null(); });
    if (measured) layers[std::string(column.name)] = std::move(values);
  }
  if (Json exponents = exponents_json(moment); !exponents.is_null())
    layers["exponents"] = std::move(exponents);
  return {{"step", moment.step}, {"seeds", moment.seeds}, {"loss", number(moment.loss)}, {"layers", layers}};
}

Json verdict_json(const Verdict& verdict) {
  return {{"kind", verdict_name(verdict.kind)},
          {"headline", verdict.headline},
          {"evidence", verdict.evidence},
          {"factor_per_layer", number(verdict.factor_per_layer)},
          {"end_to_end", number(verdict.end_to_end)},
          {"predicted_factor", number(verdict.predicted_factor)},
          {"predicted_end_to_end", number(verdict.predicted_end_to_end)}};
}

Json curve_json(const std::vector<CurvePoint>& curve) {
  Json json = {{"step", Json::array()},
               {"train_loss", Json::array()},
               {"test_loss", Json::array()},
               {"test_accuracy", Json::array()}};
  for (const CurvePoint& point : curve) {
    json["step"].push_back(point.step);
    json["train_loss"].push_back(number(point.train_loss));
    json["test_loss"].push_back(number(point.test_loss));
    json["test_accuracy"].push_back(number(point.test_accuracy));
  }
  return json;
}

// Names and numbers of the layers, once for all moments.
Json layer_list(const NetworkResult& network) {
  Json layers = Json::array();
  if (network.moments.empty()) return layers;
  const std::vector<LayerRow>& rows = network.moments.front().layers;
  for (const Moment& moment : network.moments) {
    const bool same = std::equal(
        moment.layers.begin(), moment.layers.end(), rows.begin(), rows.end(),
        [](const LayerRow& a, const LayerRow& b) { return a.layer == b.layer && a.name == b.name; });
    if (!same)
      throw InternalError("network " + network.id + " lists other layers at step " +
                          std::to_string(moment.step) + " than at its first moment");
  }
  for (const LayerRow& row : rows) layers.push_back({{"layer", row.layer}, {"name", row.name}});
  return layers;
}

Json network_json(const NetworkResult& network) {
  Json json = {{"id", network.id},
               {"title", network.title},
               {"model_spec", network.model_spec},
               {"yardstick", network.yardstick},
               {"residual", network.residual},
               {"activation", network.activation},
               {"init", network.init},
               {"norm", network.norm},
               {"depth", network.depth},
               {"width", network.width},
               {"parameters", network.parameters},
               {"final_accuracy", number(network.final_accuracy)},
               {"final_loss", number(network.final_loss)},
               {"diverged_at", network.diverged_at ? Json(*network.diverged_at) : Json(nullptr)},
               {"diverged_where", network.diverged_where},
               {"at_init", verdict_json(network.at_init)},
               {"trained", verdict_json(network.trained)},
               {"curve", curve_json(network.curve)},
               {"layers", layer_list(network)},
               {"moments", Json::array()}};
  for (const Moment& moment : network.moments) json["moments"].push_back(moment_json(moment));
  return json;
}

Json claims_json(const std::vector<PairClaim>& claims) {
  Json json = Json::array();
  for (const PairClaim& c : claims) {
    const char* const answer = c.answer == PairClaim::Answer::holds ? "holds" : c.answer == PairClaim::Answer::fails ? "fails" : "open";
    json.push_back({{"id", c.id}, {"claim", c.claim}, {"answer", answer}, {"measured", c.measured},
                    {"expected", c.expected}, {"rule", c.rule}});
  }
  return json;
}

Json pair_json(const PairResult& pair, const Thresholds& thresholds) {
  Json json = {{"full_size", pair.full_size},
               {"why_not", pair.why_not},
               {"data", pair.data},
               {"reduction", pair.reduction},
               {"optimizer", pair.optimizer},
               {"learning_rate", number(pair.learning_rate)},
               {"batch", pair.batch},
               {"steps", pair.steps},
               {"held_out", pair.held_out},
               {"seconds", number(pair.seconds)},
               {"claims", claims_json(pair_claims(pair, thresholds))},
               {"networks", Json::array()}};
  for (const NetworkResult& network : pair.networks) json["networks"].push_back(network_json(network));
  return json;
}

bool is_scalar_list(const Json& json) {
  return json.is_array() &&
         std::all_of(json.begin(), json.end(), [](const Json& item) { return item.is_primitive(); });
}

void append_text(const Json& json, int indent, std::string& out) {
  if (json.is_primitive() || json.empty() || is_scalar_list(json)) {
    // Paths may hold bytes that are no UTF-8; those become U+FFFD.
    out += json.dump(-1, ' ', false, Json::error_handler_t::replace);
    return;
  }
  const std::string margin(static_cast<std::size_t>(indent + 1), ' ');
  const bool object = json.is_object();
  out += object ? '{' : '[';
  bool first = true;
  for (auto it = json.begin(); it != json.end(); ++it) {
    out += first ? "\n" : ",\n";
    first = false;
    out += margin;
    if (object) out += Json(it.key()).dump() + ": ";
    append_text(*it, indent + 1, out);
  }
  out += '\n' + std::string(static_cast<std::size_t>(indent), ' ') + (object ? '}' : ']');
}

}  // namespace

nlohmann::ordered_json to_json(const StudyResult& study) {
  Json json = {{"schema", kReportSchema},
               {"title", study.title},
               {"interrupted", study.interrupted},
               {"program",
                {{"version", study.gradflow_version},
                 {"git_revision", study.git_revision},
                 {"build", study.build},
                 {"libraries", study.libraries}}},
               {"run",
                {{"date_utc", study.date_utc},
                 {"command", study.command},
                 {"seconds", number(study.seconds)},
                 {"device", study.device},
                 {"device_model", study.device_model},
                 {"precision", study.precision}}},
               {"settings",
                {{"data", study.data},
                 {"classes", study.classes},
                 {"optimizer", study.optimizer},
                 {"schedule", study.schedule},
                 {"seed", study.seed},
                 {"init_seeds", study.init_seeds},
                 {"batch", study.batch},
                 {"steps", study.steps},
                 {"held_out", study.held_out},
                 {"held_out_last", study.held_out_last}}},
               {"thresholds",
                {{"vanish_below", number(study.thresholds.vanish_below)},
                 {"explode_above", number(study.thresholds.explode_above)},
                 {"dead_fraction", number(study.thresholds.dead_fraction)},
                 {"learn_fraction", number(study.thresholds.learn_fraction)}}},
               {"networks", Json::array()}};
  for (const NetworkResult& network : study.networks) json["networks"].push_back(network_json(network));
  json["pair"] = study.pair ? pair_json(*study.pair, study.thresholds) : Json(nullptr);
  return json;
}

std::string json_text(const nlohmann::ordered_json& document) {
  std::string out;
  append_text(document, 0, out);
  return out + '\n';
}

}  // namespace gradflow::app
