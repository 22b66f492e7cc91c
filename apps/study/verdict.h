// From numbers to a verdict with its evidence.
//
// Which ratio decides? Not |dL/dz^1| / |dL/dz^L| alone: the head's step (128 -> 10 has another variance and
// another fan-out), the stem's step (raw inputs; behind batch norm an extra factor of 0.2 to 0.6) and a
// profile that dips in the middle can each hide or fake a loss. Not the factor per layer alone: 0.9 is
// harmless over 5 layers and fatal over 500. What decides is what the worst-served inner layer gets: min and
// max of |dL/dz^l| over l = 2..L-1, relative to layer L-1 (all layers where there are fewer than two inner
// ones). It measures the damage at this depth, needs no fit, and no dip escapes it. The evidence names the
// fitted factor per layer and the ratio from end to end as well.
//
// A gradient that decays into denormals and then to exact zero vanished; one that is cut to zero at once is
// dead. Dead units alone make a network dead only if it does not learn either.
#pragma once

#include <string>

#include "apps/study/results.h"

namespace gradflow::app {

// Judges moments[0], with the prediction beside the measurement where there is one. Learning is not asked.
Verdict judge_at_init(const NetworkResult& network, const Thresholds& thresholds);

// Judges the last moment and the accuracy reached. In this order: diverged, vanishes, explodes, dead,
// does_not_learn, healthy. Accuracy is measured against the yardstick's; without one (null, no accuracy, or
// not above chance), and for the yardstick itself, against 100%. Without an own accuracy only the gradient
// is judged, and the evidence says so. decay_step, where known, is |change of W| / |W| of a step that weight
// decay alone makes: lr * decay / (1 - momentum) for SGD; it is named beside how far the layers move.
Verdict judge_trained(const NetworkResult& network, const NetworkResult* yardstick,
                      const Thresholds& thresholds, int classes, double decay_step = kMissing);

// The rules above with their numbers, in sentences for the report and the terminal.
std::string describe(const Thresholds& thresholds);

}  // namespace gradflow::app
