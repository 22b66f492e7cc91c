// Held-out loss, accuracy and dead units of a network, in evaluation mode.
#pragma once

#include <memory>
#include <vector>

#include "gradflow/engine/executor.h"
#include "gradflow/engine/feed.h"
#include "gradflow/layers/models.h"

namespace gradflow::app {

struct HeldOutResult {
  double loss = 0, accuracy = 0;
  std::vector<double> dead;  // per weight layer: fraction of the units fed by it that are <= 0 on every
                             // sample; NaN for the head
};

class HeldOut {
 public:
  // Forward-only executors over `store`: whole batches, and what is left after them.
  HeldOut(const ModelSpec& spec, const Dataset& data, ParameterStore& store, std::size_t samples);

  HeldOutResult run(Feed& test);

 private:
  struct Part {
    std::size_t batch = 0, first = 0, last = 0;
    Model model;
    std::unique_ptr<Executor> executor;
  };
  std::vector<Part> parts_;
  std::size_t samples_;
};

}  // namespace gradflow::app
