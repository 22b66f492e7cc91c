#include "apps/train/report.h"

#include <fmt/chrono.h>
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <map>
#include <nlohmann/json.hpp>
#include <sstream>

#include "apps/common/precision.h"
#include "apps/common/shell_words.h"
#include "apps/study/prediction.h"
#include "apps/study/verdict.h"
#include "apps/train/log_lines.h"
#include "gradflow/engine/file.h"
#include "gradflow/engine/version.h"

namespace gradflow::app {
namespace {

using nlohmann::json;

double number(const json& j) { return j.is_number() ? j.get<double>() : kMissing; }

struct Log {
  std::map<std::int64_t, double> losses, rates;  // by step
  std::vector<json> layers, held_out;
  std::optional<json> nonfinite;
};

Log read_log(const std::filesystem::path& path) {
  Log log;
  std::istringstream text(read_file(path));
  for (std::string line; std::getline(text, line);) {
    json j = json::parse(line, nullptr, false);
    if (!j.is_object()) continue;
    const std::string event = j.value("event", "");
    if (event == "step") {
      const std::int64_t step = j.at("step");
      log.losses[step] = number(j.at("loss"));
      log.rates[step] = number(j.at("learning_rate"));
    }
    if (event == "layers")
      log.layers.push_back(std::move(j));
    else if (event == "held_out")
      log.held_out.push_back(std::move(j));
    else if (event == "nonfinite")
      log.nonfinite = std::move(j);
  }
  return log;
}

// The layers behind which a batch norm follows at once: every convolution of the networks of version v1.
bool scale_free(const ModelSpec& spec) {
  return spec.conv && spec.conv->batch_norm && !spec.conv->pre_activation;
}

Moment moment_of(const json& line, const Log& log, const ModelSpec& spec) {
  const std::int64_t step = line.at("step");
  Moment m;
  m.step = static_cast<int>(step - 1);
  const auto find = [&](const std::map<std::int64_t, double>& numbers) {
    const auto found = numbers.find(step);
    return found == numbers.end() ? kMissing : found->second;
  };
  m.loss = find(log.losses);
  const std::size_t count = line.at("layer").size();
  m.layers.resize(count);
  const auto fill = [&](const char* name, double LayerRow::*value) {
    const auto found = line.find(name);
    for (std::size_t l = 0; l < count; ++l)
      m.layers[l].*value = found == line.end() || found->size() != count ? kMissing : number((*found)[l]);
  };
  fill("gradient", &LayerRow::gradient_norm);
  fill("weight", &LayerRow::weight_norm);
  fill("weight_gradient", &LayerRow::weight_gradient_norm);
  fill("update", &LayerRow::update_ratio);
  for (const MoreColumn& column : kMoreColumns) fill(column.name, column.value);
  const json exponents = line.value("exponents", json::object());
  for (std::size_t l = 0; l < count; ++l) {
    LayerRow& row = m.layers[l];
    row.layer = static_cast<int>(l) + 1;
    row.name = line.at("layer")[l];
    row.update_ratio /= row.weight_norm;
    if (scale_free(spec) && l + 1 < count)
      row.effective_rate = find(log.rates) / (row.weight_norm * row.weight_norm);
    if (exponents.contains("first")) {
      row.first_exponent = exponents.at("first").at(l);
      for (const json& share : exponents.at("shares_ppm").at(l))
        row.exponent_shares.push_back(share.get<double>() * 1e-6);
    }
  }
  for (std::size_t l = 0; l + 1 < count; ++l) {
    m.layers[l].gradient_norm_low = m.layers[l].gradient_norm_high = kMissing;
    if (m.layers[l + 1].gradient_norm > 0)
      m.layers[l].factor = m.layers[l].gradient_norm / m.layers[l + 1].gradient_norm;
  }
  return m;
}

// A point at the first step and one at each evaluation; the training loss is the mean since the point before.
std::vector<CurvePoint> curve_of(const Log& log) {
  std::vector<CurvePoint> curve;
  if (log.losses.empty()) return curve;
  std::int64_t since = log.losses.begin()->first;
  curve.push_back({.step = static_cast<int>(since), .train_loss = log.losses.begin()->second});
  for (const json& line : log.held_out) {
    const std::int64_t step = line.at("step");
    double sum = 0, steps = 0;
    for (auto at = log.losses.upper_bound(since); at != log.losses.end() && at->first <= step; ++at)
      sum += at->second, ++steps;
    if (step == since) curve.clear();  // a run of one step
    curve.push_back({.step = static_cast<int>(step),
                     .train_loss = steps > 0 ? sum / steps : kMissing,
                     .test_loss = number(line.at("loss")),
                     .test_accuracy = number(line.at("accuracy"))});
    since = step;
  }
  return curve;
}

void describe_model(const ModelSpec& spec, const Model& model, bool loaded, NetworkResult& n) {
  n.id = "run";
  n.title = n.model_spec = spec.text;
  n.residual = spec.conv ? spec.conv->residual : spec.mlp.skip;
  const PointwiseId act = spec.conv ? spec.conv->act : spec.mlp.act;
  n.activation = act == PointwiseId::identity ? "linear" : std::string(info_of(act).name);
  n.init = loaded ? std::string(kLoadedWeights) : std::string(name_of(spec.initializer().kind));
  n.norm = (spec.conv ? spec.conv->batch_norm : spec.mlp.batch_norm) ? "bn" : "none";
  n.depth = static_cast<int>(model.layers.size());
  n.width = spec.conv ? (spec.conv->imagenet ? 64 : 16) : static_cast<int>(spec.mlp.width);
  n.parameters = static_cast<std::int64_t>(model.graph.parameter_count());
}

// "sgd:lr=0.1,momentum=0.9" as two options.
std::string optimizer_options(const OptimizerConfig& config) {
  const std::string all = describe(config);
  const std::size_t colon = all.find(':'), comma = all.find(',');
  return fmt::format("{}:{} --lr {}", all.substr(0, colon), all.substr(comma + 1), config.learning_rate);
}

std::string command_of(const Session& s) {
  const TrainSettings& t = s.settings;
  std::string text = fmt::format(
      "gradflow train --model {} --data {} --optimizer {} --schedule {} --augment {} --batch {} --seed {}",
      shell_word(t.model.text), shell_word(t.data), optimizer_options(t.optimizer), t.schedule.text(),
      t.augmentation.text, t.batch, t.seed);
  if (!t.weights.empty()) text += " --weights " + shell_word(t.weights);
  if (s.tf32) text += " --tf32";
  if (!s.fuse) text += " --no-fuse";
  return text + (t.epochs > 0 ? fmt::format(" --epochs {}", t.epochs) : fmt::format(" --steps {}", t.steps)) +
         fmt::format(" --dtype {} --probe-every {} --device {} --out DIR", name_of(t.dtype), t.probe_every, s.device_name);
}

}  // namespace

StudyResult study_of_run(const Session& s, const Outcome& outcome) {
  const Log log = read_log(s.out / "log.jsonl");
  const auto& device = s.device->info();
  StudyResult r;
  r.title = fmt::format("Where did the gradient go? {} on {}", s.settings.model.text, s.settings.data);
  r.gradflow_version = version();
  r.git_revision = git_revision();
  r.build = build_summary();
  r.date_utc =
      fmt::format("{:%Y-%m-%dT%H:%M:%SZ}",
                  fmt::gmtime(std::chrono::system_clock::to_time_t(std::chrono::system_clock::now())));
  r.command = command_of(s);
  r.device = device.name;
  r.device_model = device.model;
  r.libraries = device.libraries;
  r.precision = fmt::format("{}; {}", storage_text(s.settings.dtype), device.precision);
  r.data = fmt::format("{}: {} + {} images {}x{}x{}, {} classes; augmentation: {}", s.data.name,
                       s.data.train.count(), s.data.test.count(), s.data.shape.height, s.data.shape.width,
                       s.data.shape.channels, s.data.classes, s.settings.augmentation.text);
  r.optimizer = describe(s.settings.optimizer);
  r.schedule = s.settings.schedule.text();
  r.seed = s.settings.seed;
  r.init_seeds = 1;
  r.batch = static_cast<int>(s.settings.batch);
  r.steps = static_cast<int>(outcome.step);
  r.classes = s.data.classes;
  r.held_out = r.held_out_last = static_cast<int>(s.data.test.count());
  r.seconds = outcome.seconds;
  r.interrupted = outcome.status == "interrupted";
  if (log.layers.empty()) return r;

  NetworkResult n;
  const bool loaded = !s.settings.weights.empty();
  describe_model(s.settings.model, s.model, loaded, n);
  const std::size_t count = log.layers.size(), kept = std::min(count, kMostMoments);
  for (std::size_t i = 0; i < kept; ++i)
    n.moments.push_back(
        moment_of(log.layers[kept == 1 ? 0 : i * (count - 1) / (kept - 1)], log, s.settings.model));
  // Theory is about random weights, not about those of a file.
  if (n.moments.front().step == 0 && !loaded && !s.settings.model.conv && s.settings.augmentation.text == "none") {
    BatchOrder order(s.data.train.count(), static_cast<std::size_t>(s.settings.batch), s.settings.seed);
    add_predictions(s.model, s.data, order.batch(0), n.moments.front().layers);
  }
  n.curve = curve_of(log);
  if (!log.held_out.empty() && !log.nonfinite) {
    n.final_accuracy = number(log.held_out.back().at("accuracy"));
    n.final_loss = number(log.held_out.back().at("loss"));
  }
  if (log.nonfinite) {
    n.diverged_at = static_cast<int>(log.nonfinite->at("step").get<std::int64_t>());
    n.diverged_where = log.nonfinite->at("tensor");
  }
  n.at_init = judge_at_init(n, r.thresholds);
  if (n.moments.back().step > 0 || n.diverged_at) {
    n.trained = judge_trained(n, nullptr, r.thresholds, r.classes);
  } else {
    n.trained.headline = "not measured";
    n.trained.evidence = "no step after the first was measured; --probe-every says how often to look";
  }
  r.networks.push_back(std::move(n));
  return r;
}

}  // namespace gradflow::app
