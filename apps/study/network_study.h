// Measures one network of a study: at initialization over several seeds, then while it trains.
#pragma once

#include <cstdint>

#include "apps/study/results.h"
#include "apps/study/study.h"
#include "gradflow/engine/feed.h"
#include "gradflow/kernels/backend.h"

namespace gradflow::app {

struct StudyData {
  const Dataset& data;
  Feed& train;
  Feed& test;
};

// tick(share) reports the share of this network's work that is done; it may be called often.
NetworkResult study_network(const StudyOptions& options, const NetworkChoice& choice, kernels::Backend& backend,
                            const StudyData& data, const std::function<void(double)>& tick);

}  // namespace gradflow::app
