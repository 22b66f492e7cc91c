// Loss and accuracy on the whole held-out split, in evaluation mode.
#pragma once

#include <cstddef>
#include <memory>
#include <vector>

#include "gradflow/engine/executor.h"
#include "gradflow/engine/feed.h"
#include "gradflow/layers/models.h"

namespace gradflow::app {

struct Evaluation {
  double loss = 0;      // mean over all samples
  double accuracy = 0;  // share of them
};

// Forward-only executors that read the training's own parameters: one for big batches and, if the split is
// no multiple of that, one for the rest. Every sample counts once and in the same order, so equal
// parameters give equal bits. Backend and parameters must outlive it; the data need not.
class Evaluator {
 public:
  Evaluator(const ModelSpec& spec, const Dataset& data, Backend& backend, ParameterStore& parameters);

  Evaluation run();

 private:
  struct Part {
    std::size_t batch = 0, first = 0, last = 0;  // samples [first, last)
    std::unique_ptr<Executor> executor;
  };
  Feed feed_;
  std::vector<Part> parts_;
};

}  // namespace gradflow::app
