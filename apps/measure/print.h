// A measurement as tables and as JSON.
#pragma once

#include <string>

#include "apps/measure/measurement.h"

namespace gradflow::app {

std::string measurement_tables(const Measurement& m, std::size_t width);

// Object "gradflow-measure/1": settings, loss, and four lists of tensors, each with norm, mean, std, max,
// counts of zeros, denormals, nonfinite and saturated elements, `dead` for ReLU, and the exponent counts from
// `first_exponent`.
// `weights`: the file they are from, empty for the initial ones.
std::string measurement_json(const Measurement& m, const NetworkOptions& options, const std::string& weights,
                             const Network& network);

}  // namespace gradflow::app
