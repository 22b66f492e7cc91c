// Runs the networks of a study: one after the other on a GPU, several at a time on the host.
#pragma once

#include <vector>

#include "apps/study/study.h"
#include "gradflow/kernels/backend.h"

namespace gradflow::app {

// On the host every network runs on one thread and as many networks at a time as there are threads: layers
// of this size are too small to share, and a network's bits then do not depend on the number of cores.
int networks_at_a_time(const kernels::Backend& backend);

// Results in the order of `choices`, without those that were not begun when an interrupt came. `progress` is
// called by one thread at a time.
std::vector<NetworkResult> run_networks(const StudyOptions& options, const std::vector<NetworkChoice>& choices,
                                        kernels::Backend& backend, const Dataset& data, const StudyProgress& progress);

}  // namespace gradflow::app
