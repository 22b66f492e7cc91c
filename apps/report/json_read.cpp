// The reading half of apps/report/json.h.
#include <fmt/format.h>

#include "apps/report/columns.h"
#include "apps/report/json.h"
#include "gradflow/kernels/error.h"

namespace gradflow::app {
namespace {

using Json = nlohmann::ordered_json;

double number(const Json& json) { return json.is_null() ? kMissing : json.get<double>(); }

Verdict read_verdict(const Json& json) {
  Verdict verdict;
  verdict.kind = verdict_kind(json.at("kind").get<std::string>());
  verdict.headline = json.at("headline");
  verdict.evidence = json.at("evidence");
  verdict.factor_per_layer = number(json.at("factor_per_layer"));
  verdict.end_to_end = number(json.at("end_to_end"));
  verdict.predicted_factor = number(json.at("predicted_factor"));
  verdict.predicted_end_to_end = number(json.at("predicted_end_to_end"));
  return verdict;
}

// What the parser says, without its own name in front: "[json.exception.parse_error.101] parse error at line 1, ...".
std::string reason(const nlohmann::json::exception& error) {
  const std::string_view said = error.what();
  const std::size_t end = said.starts_with('[') ? said.find("] ") : said.npos;
  return std::string(end == said.npos ? said : said.substr(end + 2));
}

// One of a list read by `read`; what is wrong with it is said with its name and number.
template <class Read>
auto item(const char* name, const Json& list, std::size_t number, Read read) {
  const auto where = [&](std::string_view what) { return UserError(fmt::format("{} {}: {}", name, number, what)); };
  try {
    return read(list.at(number));
  } catch (const nlohmann::json::exception& error) {
    throw where(reason(error));
  } catch (const UserError& error) {
    throw where(error.what());
  }
}

// A column as long as the list of layers, or a UserError.
const Json& column(const Json& json, std::string_view name, std::size_t length) {
  if (json.size() != length) {
    throw UserError(fmt::format("column '{}' has {} entries for {} layers", name, json.size(), length));
  }
  return json;
}

Moment read_moment(const Json& json, const Json& layer_list) {
  Moment moment;
  moment.step = json.at("step");
  moment.seeds = json.at("seeds");
  moment.loss = number(json.at("loss"));
  const std::size_t count = layer_list.size();
  moment.layers.resize(count);
  for (std::size_t i = 0; i < count; ++i) {
    moment.layers[i].layer = layer_list[i].at("layer");
    moment.layers[i].name = layer_list[i].at("name");
  }
  const Json& layers = json.at("layers");
  for (const LayerColumn& entry : layer_columns()) {
    const auto found = layers.find(std::string(entry.name));
    if (found == layers.end()) {
      for (LayerRow& row : moment.layers) row.*entry.value = kMissing;
      continue;
    }
    const Json& values = column(*found, entry.name, count);
    for (std::size_t i = 0; i < count; ++i) moment.layers[i].*entry.value = number(values[i]);
  }
  if (const auto exponents = layers.find("exponents"); exponents != layers.end()) {
    const Json& first = column(exponents->at("first"), "exponents.first", count);
    const Json& shares = column(exponents->at("shares_ppm"), "exponents.shares_ppm", count);
    for (std::size_t i = 0; i < count; ++i) {
      moment.layers[i].first_exponent = first[i];
      for (const Json& share : shares[i])
        moment.layers[i].exponent_shares.push_back(share.get<double>() * 1e-6);
    }
  }
  return moment;
}

std::vector<CurvePoint> read_curve(const Json& json) {
  const std::size_t count = json.at("step").size();
  std::vector<CurvePoint> curve(count);
  for (std::size_t i = 0; i < count; ++i) {
    curve[i].step = json.at("step")[i];
    curve[i].train_loss = number(column(json.at("train_loss"), "curve.train_loss", count)[i]);
    curve[i].test_loss = number(column(json.at("test_loss"), "curve.test_loss", count)[i]);
    curve[i].test_accuracy = number(column(json.at("test_accuracy"), "curve.test_accuracy", count)[i]);
  }
  return curve;
}

NetworkResult read_network(const Json& json) {
  NetworkResult network;
  network.id = json.at("id");
  network.title = json.at("title");
  network.model_spec = json.at("model_spec");
  network.yardstick = json.at("yardstick");
  network.residual = json.at("residual");
  network.activation = json.at("activation");
  network.init = json.at("init");
  network.norm = json.at("norm");
  network.depth = json.at("depth");
  network.width = json.at("width");
  network.parameters = json.at("parameters");
  network.final_accuracy = number(json.at("final_accuracy"));
  network.final_loss = number(json.at("final_loss"));
  if (!json.at("diverged_at").is_null()) network.diverged_at = json.at("diverged_at").get<int>();
  network.diverged_where = json.at("diverged_where");
  network.at_init = read_verdict(json.at("at_init"));
  network.trained = read_verdict(json.at("trained"));
  network.curve = read_curve(json.at("curve"));
  const Json &moments = json.at("moments"), &layers = json.at("layers");
  for (std::size_t i = 0; i < moments.size(); ++i)
    network.moments.push_back(item("moment", moments, i, [&](const Json& m) { return read_moment(m, layers); }));
  return network;
}

PairResult read_pair(const Json& json) {
  PairResult pair;
  pair.full_size = json.at("full_size");
  pair.why_not = json.at("why_not");
  pair.data = json.at("data");
  pair.reduction = json.at("reduction");
  pair.optimizer = json.at("optimizer");
  pair.learning_rate = number(json.at("learning_rate"));
  pair.batch = json.at("batch");
  pair.steps = json.at("steps");
  pair.held_out = json.at("held_out");
  pair.seconds = number(json.at("seconds"));
  const Json& networks = json.at("networks");
  for (std::size_t i = 0; i < networks.size(); ++i) pair.networks.push_back(item("network of the pair", networks, i, read_network));
  return pair;
}

StudyResult read_study(const Json& json) {
  const std::string schema = json.value("schema", "");
  if (schema != kReportSchema) {
    throw UserError(fmt::format("schema is '{}', expected '{}'", schema, kReportSchema));
  }
  StudyResult study;
  study.title = json.at("title");
  study.interrupted = json.at("interrupted");
  const Json& program = json.at("program");
  study.gradflow_version = program.at("version");
  study.git_revision = program.at("git_revision");
  study.build = program.at("build");
  study.libraries = program.at("libraries");
  const Json& run = json.at("run");
  study.date_utc = run.at("date_utc");
  study.command = run.at("command");
  study.seconds = number(run.at("seconds"));
  study.device = run.at("device");
  study.device_model = run.at("device_model");
  study.precision = run.at("precision");
  const Json& settings = json.at("settings");
  study.data = settings.at("data");
  study.classes = settings.at("classes");
  study.optimizer = settings.at("optimizer");
  study.schedule = settings.at("schedule");
  study.seed = settings.at("seed");
  study.init_seeds = settings.at("init_seeds");
  study.batch = settings.at("batch");
  study.steps = settings.at("steps");
  study.held_out = settings.value("held_out", 0);  // older reports do not say
  study.held_out_last = settings.value("held_out_last", 0);
  const Json& thresholds = json.at("thresholds");
  study.thresholds.vanish_below = thresholds.at("vanish_below");
  study.thresholds.explode_above = thresholds.at("explode_above");
  study.thresholds.dead_fraction = thresholds.at("dead_fraction");
  study.thresholds.learn_fraction = thresholds.at("learn_fraction");
  const Json& networks = json.at("networks");
  for (std::size_t i = 0; i < networks.size(); ++i) study.networks.push_back(item("network", networks, i, read_network));
  // Reports of before the pair have none.
  if (const auto pair = json.find("pair"); pair != json.end() && !pair->is_null()) study.pair = read_pair(*pair);
  return study;
}

}  // namespace

StudyResult from_json(const nlohmann::ordered_json& document) {
  try {
    return read_study(document);
  } catch (const nlohmann::json::exception& error) {
    throw UserError(fmt::format("not a gradflow report: {}", reason(error)));
  } catch (const UserError& error) {
    throw UserError(fmt::format("not a gradflow report: {}", error.what()));
  }
}

StudyResult parse_report(std::string_view text) {
  Json document;
  try {
    document = Json::parse(text);
  } catch (const nlohmann::json::exception& error) {
    throw UserError(fmt::format("not a gradflow report: {}", reason(error)));
  }
  return from_json(document);
}

}  // namespace gradflow::app
