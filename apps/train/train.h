// Trains one network: what `gradflow train` does.
#pragma once

#include <iosfwd>

#include "apps/train/settings.h"

namespace gradflow::app {

// Writes, if `options.out` is given: log.jsonl, last.safetensors, best.safetensors (highest held-out
// accuracy, then lowest loss) and summary.json. Returns the program's exit code:
//   0    the run is complete
//   1    the loss or a parameter became NaN or infinite; the last good checkpoint is untouched
//   130  Ctrl-C, 143 SIGTERM: the step under way was finished and everything was written
// UserError for options that do not fit, or a disk that is full.
//
// A run that was stopped at any moment, even by SIGKILL, and resumed leaves the same parameters and the same
// log, bit for bit, as one that was not (same device, build and thread count).
int run_train(const TrainOptions& options, std::ostream& out, std::ostream& errors);

}  // namespace gradflow::app
