// What svg.cpp and svg_exponents.cpp share; of no use elsewhere.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "apps/report/svg.h"

namespace gradflow::app {

// The levels of the factors in the order in which they first occur.
struct Levels {
  std::vector<std::string> activations, inits, norms;
};
Levels factorial_levels(const StudyResult& study);

// exponents.svg; nothing if no histogram was recorded.
std::optional<Figure> exponent_figure(const StudyResult& study);

}  // namespace gradflow::app
