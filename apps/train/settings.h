// What `gradflow train` was asked for, and what that means for the run at hand.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>

#include "apps/common/make_executor.h"
#include "apps/terminal/style.h"
#include "gradflow/engine/augmentation.h"
#include "gradflow/engine/checkpoint.h"
#include "gradflow/engine/optimizer.h"
#include "gradflow/engine/schedule.h"
#include "gradflow/layers/models.h"

namespace gradflow::app {

// As given on the command line. A resumed run takes whatever is absent here from its checkpoint.
struct TrainOptions {
  std::optional<std::string> model, data, optimizer, schedule, augment;
  std::optional<std::string> recipe;  // fills in what is absent, see recipe.h
  std::optional<double> learning_rate, momentum, weight_decay;
  std::optional<std::int64_t> epochs, steps, batch;
  std::optional<std::int64_t> eval_every, checkpoint_every, probe_every;  // steps
  std::optional<std::uint64_t> seed;
  std::optional<std::string> dtype;
  bool tf32 = false;
  std::string device = "auto";
  std::string out;  // empty: nothing is written
  std::string weights;  // a safetensors file to begin with; empty: the initializer
  std::uint64_t memory_limit = kNoMemoryLimit;
  bool no_fuse = false;  // keep layers apart that could be one pass
  bool stream = false;  // batches are handed over one by one, wherever the data would fit
  bool resume = false;
  bool tensorboard = false;
  bool quiet = false;
  Terminal terminal;
};

inline constexpr std::int64_t kProbeEvery = 100;

// Everything that decides a run, complete and consistent.
struct TrainSettings {
  ModelSpec model;
  std::string data;
  OptimizerConfig optimizer;
  Schedule schedule;
  Augmentation augmentation;
  std::int64_t batch = 128;
  std::uint64_t seed = 1;
  DType dtype = DType::f32;
  // Exactly one of the two is above 0; the number of steps follows from the size of the data set.
  std::int64_t epochs = 0, steps = 0;
  std::int64_t eval_every = 0, checkpoint_every = 0;  // 0: once an epoch
  std::int64_t probe_every = kProbeEvery;             // and the first step; 0: never
  std::string weights;  // the file that the run began with; empty: the initializer
};

// "sgd", "nesterov:momentum=0.9", "adamw:beta2=0.95,weight_decay=0.01", with the rate and the two options
// that may also be given by themselves. UserError, one line, for whatever does not fit.
OptimizerConfig parse_optimizer(const std::string& text, double learning_rate, std::optional<double> momentum,
                                std::optional<double> weight_decay);

// UserError naming what is missing or contradictory, and what model, data, optimizer or schedule cannot be. Counts
// come checked from the command line.
TrainSettings fresh_settings(const TrainOptions& options);

// The settings of a checkpointed run; UserError if the options ask for another model, data set, optimizer,
// schedule, seed or batch. Length and cadences may be given anew.
TrainSettings resumed_settings(const TrainOptions& options, const Checkpoint& checkpoint);

// What a checkpoint must remember of the settings beyond CheckpointInfo's own fields.
Metadata settings_metadata(const TrainSettings& settings);

}  // namespace gradflow::app
