// The pair the argument is about: plain-56 and ResNet-56 of He et al. 2015 with batch norm, from the same
// weights, on the same batches, with the paper's rate, momentum, decay and batch size: what their gradients
// do in the first steps and after.
#pragma once

#include "apps/study/study.h"
#include "gradflow/kernels/backend.h"

namespace gradflow::app {

// plain-56, then ResNet-56.
std::vector<NetworkChoice> pair_choices();

// Seed and data are those of the study. `size` must not be `off`. Between steps it looks at interrupted();
// images too small for the network are a reason not to run (PairResult::why_not), no error.
PairResult run_pair(const StudyOptions& study, PairSize size, kernels::Backend& backend, const Dataset& data,
                    const StudyProgress& progress);

}  // namespace gradflow::app
