// The report of a training run: the gradient by layer over the steps that were measured, as the demo shows
// it.
#pragma once

#include <filesystem>

#include "apps/study/results.h"
#include "apps/train/session.h"
#include "apps/train/summary.h"

namespace gradflow::app {

// Made from log.jsonl alone, so that a run that was stopped and resumed has the report of one that was not. A
// line "layers" of step k was measured before that step's update: it is the report's step k-1, and 0 is
// initialization. At most kMostMoments of them, evenly spread, are taken. No networks if none was measured.
inline constexpr std::size_t kMostMoments = 24;
StudyResult study_of_run(const Session& session, const Outcome& outcome);

}  // namespace gradflow::app
