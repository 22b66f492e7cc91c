// Held-out loss, accuracy and dead units of a network, in evaluation mode.
//
// Forward-only executors read the training's own parameters: one for big batches and, if the samples are no
// multiple of that, one for the rest. Every sample counts once and in the same order, so equal parameters
// give equal bits.
#pragma once

#include <memory>
#include <vector>

#include "gradflow/engine/executor.h"
#include "gradflow/engine/feed.h"
#include "gradflow/layers/models.h"

namespace gradflow::app {

struct Evaluation {
  double loss = 0;      // mean over the samples
  double accuracy = 0;  // share of them
  std::vector<double> dead;  // per weight layer: fraction of the units fed by it that are <= 0 on every
                             // sample; NaN for the head. Empty unless asked for
};

class Evaluator {
 public:
  static constexpr std::size_t kAll = static_cast<std::size_t>(-1);

  // Over the first `samples` of the test split, which `test` feeds, in batches whose arena takes at most `most_bytes`
  // (unless a single sample takes more). `fuse` as in ExecutorOptions. Parameters and feed must outlive it.
  Evaluator(const ModelSpec& spec, const Dataset& data, ParameterStore& parameters, Feed& test, std::size_t samples = kAll,
            bool dead_units = false, std::size_t most_bytes = kAll, bool fuse = true);

  Evaluation run();
  std::size_t batch() const noexcept { return parts_.empty() ? 0 : parts_.front().batch; }  // the big ones

 private:
  struct Part {
    std::size_t batch = 0, first = 0, last = 0;  // samples [first, last)
    std::unique_ptr<Executor> executor;
  };
  Feed& test_;
  std::vector<Part> parts_;
};

}  // namespace gradflow::app
