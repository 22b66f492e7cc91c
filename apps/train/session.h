// A training run made ready: settings, data, network and optimizer, at its first step or where it stopped.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>

#include "apps/common/evaluator.h"
#include "apps/train/settings.h"
#include "gradflow/engine/dataset.h"
#include "gradflow/engine/executor.h"
#include "gradflow/engine/feed.h"

namespace gradflow::app {

struct Best {  // the held-out result that best.safetensors belongs to
  std::int64_t step = 0;
  Evaluation held_out;
};

struct Session {  // members in the order in which they depend on each other
  TrainSettings settings;
  std::filesystem::path out;  // empty: nothing is written
  std::string device_name;    // as asked for: "auto", "cpu", ...
  bool resumed = false;
  std::int64_t first_step = 0;  // finished before this run
  std::int64_t total_steps = 0, steps_per_epoch = 0;
  std::optional<Best> best;
  std::string notice;  // one line for the person, or empty

  std::unique_ptr<Backend> device;
  Dataset data;
  Model model;
  std::unique_ptr<ParameterStore> parameters;
  std::unique_ptr<Optimizer> optimizer;
  std::unique_ptr<Executor> executor;  // training, with every scalar probe and a short history
  std::unique_ptr<Feed> feed, test_feed;
  std::unique_ptr<Evaluator> evaluator;
  std::unique_ptr<BatchOrder> order;

  std::filesystem::path last_checkpoint() const { return out / "last.safetensors"; }
  std::filesystem::path best_checkpoint() const { return out / "best.safetensors"; }

  void load_batch(std::int64_t step);  // steps count from 0 here
  double learning_rate(std::int64_t step) const;

  // Everything a later resume needs, as of `step` finished steps.
  void save(const std::filesystem::path& path, std::int64_t step) const;

 private:
  std::vector<std::int32_t> indices_;
};

// UserError for anything that does not fit; the output folder is touched last, when all else is right.
Session open_session(const TrainOptions& options);

}  // namespace gradflow::app
