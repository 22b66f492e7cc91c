// Stand-alone figures of a study: small well-formed SVG files with their own style, readable on light and
// dark pages.
#pragma once

#include <array>
#include <string>
#include <string_view>
#include <vector>

#include "apps/study/results.h"

namespace gradflow::app {

struct Figure {
  std::string file_name;  // "overview.svg"; the names are stable
  std::string svg;
};

// overview.svg             |dL/dz| by layer at step 0 relative to the last layer, all networks, the prediction dashed
// weight-gradients.svg     |dL/dW| by layer at step 0
// accuracy.svg, loss.svg   the training curves
// exponents.svg            binary exponents of dL/dz at step 0
// first-steps.svg          the pair by layer, at several steps (pair_views.h)
// A figure without data is left out.
std::vector<Figure> figures(const StudyResult& study);

inline constexpr std::array<std::string_view, 6> kFigureNames = {
    "overview.svg", "weight-gradients.svg", "accuracy.svg", "loss.svg", "exponents.svg", "first-steps.svg"};

}  // namespace gradflow::app
