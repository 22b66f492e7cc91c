// "What this means": what the study shows about the usual statements on vanishing gradients, each tied to the
// numbers of this run. A claim stands in a title only if the numbers bear it out; else the title is neutral.
#pragma once

#include <string>
#include <vector>

#include "apps/study/results.h"

namespace gradflow::app {

// A measured factor per layer agrees with the prediction if it is within this fraction of it.
inline constexpr double kAgreement = 0.03;

struct Finding {
  std::string id;  // "sigmoid"
  std::string title;
  std::string measured;               // from the numbers of this study
  std::string why;                    // the explanation, with its source
  std::vector<std::string> networks;  // ids of the networks it speaks about
  enum class Theory { agrees, differs, silent } theory = Theory::silent;
};

// Those for which the study has the networks.
std::vector<Finding> findings(const StudyResult& study);

}  // namespace gradflow::app
