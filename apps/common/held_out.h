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

struct HeldOutResult {
  double loss = 0;      // mean over the samples
  double accuracy = 0;  // share of them
  std::vector<double> dead;  // per weight layer: fraction of the units fed by it that are <= 0 on every
                             // sample; NaN for the head. Empty unless asked for
};

class HeldOut {
 public:
  // Over the first `samples` of the test split (or all, if it has fewer). `store` must outlive it.
  HeldOut(const ModelSpec& spec, const Dataset& data, ParameterStore& store, std::size_t samples, bool dead_units);

  HeldOutResult run(Feed& test);  // `test` holds data.test

 private:
  struct Part {
    std::size_t batch = 0, first = 0, last = 0;  // samples [first, last)
    std::unique_ptr<Executor> executor;
  };
  std::vector<Part> parts_;
};

}  // namespace gradflow::app
