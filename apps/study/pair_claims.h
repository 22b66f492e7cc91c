// What the pair shows, predictions judged by its numbers, by rules that are printed with them.
//
// The numbers are those of an independent simulation of the same two networks (NumPy, f64, one seed;
// docs/SCIENCE.md, section 7), so that both can stand side by side. C counts the convolutions: layers 1 to C,
// then the head.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <vector>

#include "apps/study/results.h"

namespace gradflow::app {

// One network at one step, condensed.
struct PairFigures {
  int step = 0;
  double growth = kMissing;                 // (|dL/dz^2| / |dL/dz^C|)^(1/(C-2)): a layer, toward the input
  double gradient_ratio = kMissing;         // |dL/dz^1| / |dL/dz^C|
  double weight_gradient_ratio = kMissing;  // |dL/dW^1| / |dL/dW^C|
  double first_weight_norm = kMissing;      // |W^1|
  double loss = kMissing;                   // of the measured batch
  // Geometric means over the first and the last quarter of the convolutions: lr/|W|^2 relative to step 0;
  // turn(); and |change of W| / |W| of this step.
  double early_rate = kMissing, late_rate = kMissing;
  double early_turn = kMissing, late_turn = kMissing;
  double early_update = kMissing, late_update = kMissing;
};

// arctan(lr |dL/dW| / |W|), in radians: the angle by which this step's gradient alone turns the weight, because
// the gradient of a weight whose length a batch norm cancels is orthogonal to it. The update ratio holds momentum
// (which goes on along an early huge step) and weight decay (which shrinks, and turns nothing) as well.
double turn(const LayerRow& row);

// Nothing if the network has no such moment, or fewer than 8 convolutions.
std::optional<PairFigures> pair_figures(const NetworkResult& network, int step);

// The simulation's; nothing for other depths and steps. early and late are not among its numbers.
std::optional<PairFigures> simulated_figures(const NetworkResult& network, int step);

// What the predictions are judged by.
struct PairRules {
  double growth_band = 0.03;   // of the growth a layer around the simulation's
  double level_growth = 0.05;  // level: growth within 1 +- this,
  double level_ratio = 10;     //   and |dL/dW^1| / |dL/dW^C| within this factor of 1,
  int level_by = 2;            //   by this step
  int collapse_at = 40;        // step at which the effective rates are compared (or the last one before it)
  double collapse = 0.01;      // collapsed: early_rate below this
  double frozen = 0.1;         // frozen: early_turn below this part of late_turn
};

struct PairClaim {
  std::string id;
  std::string claim;
  enum class Answer { holds, fails, open } answer = Answer::open;
  std::string measured;  // the evidence, with numbers of this run
  std::string expected;  // what theory, the simulation or the paper say
  std::string rule;      // when it holds
};

// In the order in which they build on each other; empty if the pair was not measured.
std::vector<PairClaim> pair_claims(const PairResult& pair, const Thresholds& thresholds,
                                   const PairRules& rules = {});

// One or two sentences: what came of it all.
std::string pair_summary(const PairResult& pair, const std::vector<PairClaim>& claims);

}  // namespace gradflow::app
