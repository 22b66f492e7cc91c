// A training run as TensorBoard shows it: what log.jsonl says, in an event file.
//
//   loss/train, accuracy/train, learning_rate, images_per_second     every step
//   loss/held_out, accuracy/held_out                                 each evaluation
//   gradient_norm/LAYER, and the histogram gradient_log2/LAYER       each measured step: |dL/dz|, and how its
//   elements
//                                                                    spread over the exponents of two (zeros
//                                                                    left out)
#pragma once

#include <cstdint>
#include <vector>

#include "apps/common/evaluator.h"
#include "apps/study/results.h"
#include "apps/train/session.h"
#include "gradflow/engine/event_file.h"
#include "gradflow/kernels/backend.h"

namespace gradflow::app {

class TensorboardLog {
 public:
  // A new file in the run's folder tensorboard/; for a resumed run it takes back what was written behind its
  // checkpoint.
  explicit TensorboardLog(const Session& session);

  void step(std::int64_t step, const kernels::LossResult& result, double learning_rate,
            double images_per_second);
  void held_out(std::int64_t step, const Evaluation& evaluation);
  void layers(std::int64_t step, const std::vector<LayerRow>& rows);

 private:
  EventFile events_;
};

}  // namespace gradflow::app
