#include "apps/train/settings.h"

#include <fmt/format.h>

#include <vector>

#include "apps/common/option_checks.h"
#include "apps/common/precision.h"
#include "apps/train/recipe.h"
#include "gradflow/engine/spec_text.h"
#include "gradflow/engine/text.h"
#include "gradflow/kernels/error.h"

namespace gradflow::app {
namespace {

using kernels::OptimizerKind;

bool adaptive(OptimizerKind kind) { return kind == OptimizerKind::adam || kind == OptimizerKind::adamw; }

void check_length(const TrainOptions& o) {
  if (o.epochs && o.steps) throw UserError("--epochs and --steps contradict each other: give one of them");
}

std::int64_t stored_count(const Checkpoint& checkpoint, const char* key) {
  const auto found = checkpoint.info().extra.find(key);
  std::int64_t value = 0;
  if (found == checkpoint.info().extra.end() || !parse_int(found->second, value) || value < 0 ||
      value > static_cast<std::int64_t>(kMostSteps))
    throw UserError(fmt::format("{} was not written by `gradflow train`: its '{}' is missing or no count",
                                checkpoint.source(), key));
  return value;
}

// The optimizer as a checkpoint describes it: "sgd:lr=0.1,momentum=0.9,weight_decay=0".
OptimizerConfig stored_optimizer(const std::string& description) {
  SpecReader reader(description, "optimizer of the checkpoint");
  const double rate = reader.get_double("lr", 0);
  std::string text = reader.name();
  char separator = ':';
  for (const auto& [key, value] : reader.parsed().values) {
    if (key == "lr") continue;
    text += fmt::format("{}{}={}", separator, key, value);
    separator = ',';
  }
  return parse_optimizer(text, rate, {}, {});
}

}  // namespace

OptimizerConfig parse_optimizer(const std::string& text, double learning_rate, std::optional<double> momentum,
                                std::optional<double> weight_decay) {
  SpecReader reader(text, "optimizer");
  OptimizerConfig c;
  bool known = false;
  for (const OptimizerKind kind :
       {OptimizerKind::sgd, OptimizerKind::nesterov, OptimizerKind::adam, OptimizerKind::adamw})
    if (reader.name() == name_of(kind)) c.kind = kind, known = true;
  if (!known) throw_unknown_name("optimizer", text, reader.name(), {"sgd", "nesterov", "adam", "adamw"});
  c.learning_rate = learning_rate;
  if (adaptive(c.kind)) {
    c.beta1 = reader.get_double("beta1", c.beta1);
    c.beta2 = reader.get_double("beta2", c.beta2);
    c.epsilon = reader.get_double("epsilon", c.epsilon);
  } else {
    const bool twice = reader.has("momentum") && momentum;
    c.momentum =
        reader.get_double("momentum", momentum.value_or(c.kind == OptimizerKind::nesterov ? 0.9 : 0.0));
    if (twice) reader.reject("momentum is given here and by --momentum");
  }
  const bool twice = reader.has("weight_decay") && weight_decay;
  c.weight_decay =
      reader.get_double("weight_decay", weight_decay.value_or(c.kind == OptimizerKind::adamw ? 0.01 : 0.0));
  if (twice) reader.reject("weight_decay is given here and by --weight-decay");
  reader.finish();
  if (adaptive(c.kind) && momentum)
    throw UserError(fmt::format("--momentum belongs to sgd and nesterov; {} has beta1, as in {}:beta1=0.9",
                                name_of(c.kind), name_of(c.kind)));
  check(c);
  return c;
}

TrainSettings fresh_settings(const TrainOptions& options) {
  std::vector<std::string> missing;
  const TrainOptions o = with_recipe(options);
  if (!o.model) missing.emplace_back("--model");
  if (!o.data) missing.emplace_back("--data");
  if (!o.epochs && !o.steps) missing.emplace_back("--epochs or --steps");
  if (!o.optimizer) missing.emplace_back("--optimizer");
  if (!o.learning_rate) missing.emplace_back("--lr");
  if (!missing.empty()) throw UserError(fmt::format("train needs {}", joined(missing)));
  check_length(o);

  TrainSettings s;
  s.model = parse_model(*o.model);
  s.data = *o.data;
  s.optimizer = parse_optimizer(*o.optimizer, *o.learning_rate, o.momentum, o.weight_decay);
  if (o.schedule) s.schedule = Schedule(*o.schedule);
  if (o.augment) s.augmentation = parse_augmentation(*o.augment);
  s.batch = o.batch.value_or(s.batch);
  s.seed = o.seed.value_or(s.seed);
  if (o.dtype) s.dtype = parse_dtype(*o.dtype);
  s.epochs = o.epochs.value_or(0);
  s.steps = o.steps.value_or(0);
  s.eval_every = o.eval_every.value_or(0);
  s.checkpoint_every = o.checkpoint_every.value_or(0);
  s.probe_every = o.probe_every.value_or(kProbeEvery);
  s.weights = o.weights;
  return s;
}

TrainSettings resumed_settings(const TrainOptions& o, const Checkpoint& checkpoint) {
  check_length(o);
  const CheckpointInfo& info = checkpoint.info();
  const auto same = [](const char* option, const std::string& asked, const std::string& stored) {
    if (asked != stored)
      throw UserError(fmt::format("cannot resume with {} {}: this run was begun with {}", option,
                                  quote(asked), quote(stored)));
  };
  if (o.model) same("--model", *o.model, info.model);
  if (o.data) same("--data", *o.data, info.data);
  if (o.schedule) same("--schedule", *o.schedule, info.schedule);
  if (o.recipe)
    throw UserError("--recipe is for the beginning of a run; --resume takes everything from the checkpoint");
  const auto stored_augment = info.extra.find("augment");
  const std::string augment = stored_augment == info.extra.end() ? "none" : stored_augment->second;
  if (o.augment) same("--augment", *o.augment, augment);
  if (o.batch) same("--batch", std::to_string(*o.batch), std::to_string(info.batch));
  if (o.seed) same("--seed", std::to_string(*o.seed), std::to_string(info.seed));
  if (o.dtype) same("--dtype", *o.dtype, checkpoint.dtype());

  TrainSettings s;
  s.optimizer = stored_optimizer(checkpoint.optimizer());
  if (o.optimizer) {
    const double rate = o.learning_rate.value_or(s.optimizer.learning_rate);
    same("--optimizer", describe(parse_optimizer(*o.optimizer, rate, o.momentum, o.weight_decay)),
         checkpoint.optimizer());
  }
  const auto same_number = [](const char* option, std::optional<double> asked, double stored) {
    if (asked && *asked != stored)
      throw UserError(
          fmt::format("cannot resume with {} {}: this run was begun with {}", option, *asked, stored));
  };
  same_number("--lr", o.learning_rate, s.optimizer.learning_rate);
  if (!o.optimizer) {
    same_number("--momentum", o.momentum, s.optimizer.momentum);
    same_number("--weight-decay", o.weight_decay, s.optimizer.weight_decay);
  }

  s.model = parse_model(info.model);
  s.data = info.data;
  s.schedule = Schedule(info.schedule);
  s.augmentation = parse_augmentation(augment);
  s.batch = info.batch;
  s.seed = info.seed;
  s.dtype = parse_dtype(checkpoint.dtype());
  const bool length = o.epochs || o.steps;
  s.epochs = length ? o.epochs.value_or(0) : stored_count(checkpoint, "epochs");
  s.steps = length ? o.steps.value_or(0) : stored_count(checkpoint, "steps");
  s.eval_every = o.eval_every ? *o.eval_every : stored_count(checkpoint, "eval_every");
  s.checkpoint_every =
      o.checkpoint_every ? *o.checkpoint_every : stored_count(checkpoint, "checkpoint_every");
  s.probe_every = o.probe_every ? *o.probe_every : stored_count(checkpoint, "probe_every");
  const auto stored_weights = info.extra.find("weights");
  if (stored_weights != info.extra.end()) s.weights = stored_weights->second;
  return s;
}

Metadata settings_metadata(const TrainSettings& s) {
  return {{"augment", s.augmentation.text},
          {"epochs", std::to_string(s.epochs)},
          {"steps", std::to_string(s.steps)},
          {"eval_every", std::to_string(s.eval_every)},
          {"checkpoint_every", std::to_string(s.checkpoint_every)},
          {"probe_every", std::to_string(s.probe_every)},
          {"weights", s.weights}};
}

}  // namespace gradflow::app
