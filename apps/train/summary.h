// summary.json: how a run ended, in one object.
#pragma once

#include <optional>
#include <string>

#include "apps/train/session.h"

namespace gradflow::app {

struct Outcome {
  std::string status;                  // "finished", "interrupted", "nonfinite"
  std::string message;                 // one line for a person
  std::int64_t step = 0;               // finished steps
  double seconds = 0;                  // of this run, without what came before a resume
  double samples_per_second = 0;       // of the training steps alone
  std::optional<double> train_loss;    // of the last step
  std::optional<Evaluation> held_out;  // the last one of this run
};

void write_summary(const std::filesystem::path& path, const Session& session, const Outcome& outcome);

}  // namespace gradflow::app
