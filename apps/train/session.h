// A training run made ready: settings, data, network and optimizer, at its first step or where it stopped.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "apps/common/evaluator.h"
#include "apps/common/nonfinite.h"
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
  bool tensorboard = false;  // an event file is wanted
  bool tf32 = false;
  bool fuse = true;    // layers that can be one pass
  bool fused = false;  // there were such layers
  std::int64_t first_step = 0;  // finished before this run
  std::int64_t total_steps = 0, steps_per_epoch = 0;
  std::optional<Best> best;
  std::uint64_t memory_limit = kNoMemoryLimit;
  std::vector<std::string> notices;  // lines for the person

  std::unique_ptr<Backend> device;
  Dataset data;
  Model model;
  std::unique_ptr<ParameterStore> parameters;
  std::unique_ptr<Optimizer> optimizer;
  std::unique_ptr<Executor> executor;  // training, without probes: as fused as the network allows
  std::unique_ptr<Feed> feed, test_feed;
  std::unique_ptr<Evaluator> evaluator;
  std::unique_ptr<BatchOrder> order;

  std::filesystem::path last_checkpoint() const { return out / "last.safetensors"; }
  std::filesystem::path best_checkpoint() const { return out / "best.safetensors"; }

  // Training with the probes of a report; planned when it is first wanted, with memory of its own.
  Executor& probed();

  // Has a training executor's steps begin by gathering the samples of the last load_batch(), if the data are on the
  // device; streamed data lie in its inputs when that returns.
  void feed_to(Executor& into);
  void load_batch(std::int64_t step, const Executor& into);  // steps count from 0 here
  double learning_rate(std::int64_t step) const;

  // Everything a later resume needs, as of `step` finished steps.
  void save(const std::filesystem::path& path, std::int64_t step) const;

  // What the step after which a number was not finite looks like from close by: goes back to the snapshot that was
  // taken when `from` steps were finished, and repeats the steps up to `to` with every scalar probe. The first step
  // (from 1) and tensor that are not finite, or nothing if all are; `loss_too`: whether the loss was not finite again.
  // Ends the session: the parameters are no longer worth anything.
  struct Discovery {
    std::int64_t step = 0;
    std::optional<NonFinite> tensor;
    bool loss_too = false;
  };
  Discovery find_first_nonfinite(const Snapshot& snapshot, std::int64_t from, std::int64_t to);

 private:
  std::unique_ptr<Executor> probed_;
};

// UserError for anything that does not fit; the output folder is touched last, when all else is right.
Session open_session(const TrainOptions& options);

}  // namespace gradflow::app
