#include "gradflow/kernels/stats.h"

#include <algorithm>
#include <bit>

namespace gradflow {

double Stats::max_abs() const noexcept { return std::bit_cast<double>(max_abs_bits); }

// E[x^2] - E[x]^2 in f64 is precise enough here: the statistics are for reading, and what cancels below
// about 1e-8 of the norm comes out as 0, never as the root of a negative number. NaN stays NaN.
double Stats::standard_deviation() const noexcept {
  const double variance = mean_square() - mean() * mean();
  return variance < 0 ? 0.0 : std::sqrt(variance);
}

}  // namespace gradflow
