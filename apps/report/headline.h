// The answer in a few sentences, computed from what was measured.
#pragma once

#include <string>

#include "apps/study/results.h"

namespace gradflow::app {

struct Headline {
  std::string claim;   // plain against residual networks at initialization
  std::string detail;  // the extremes, and what came of it in training
};

Headline headline(const StudyResult& study);

}  // namespace gradflow::app
