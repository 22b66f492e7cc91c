// How long a launch takes: medians over samples, each a run of launches between two points of the stream.
#pragma once

#include <span>
#include <vector>

#include "apps/bench/kernels/case.h"

namespace gradflow::app {

struct Measured {
  double median = 0, minimum = 0, maximum = 0;  // seconds a launch
  int samples = 0;
  int launches = 0;  // of a sample

  double rate(double bytes) const noexcept { return median > 0 ? bytes / median : 0; }
};

// Calls the launches in turn, over and over: several copies of one launch over different memory find the
// cache cold, a single one finds it as it left it. A sample lasts about `sample_seconds` or one launch, so
// that neither the timer's resolution nor the way to the device counts. Before each sample one launch is
// queued that is not timed: while it runs, the host gets ahead of the device.
Measured measure(kernels::Backend& backend, std::span<const LaunchOnce> launches, int samples,
                 double sample_seconds = 1e-3);

}  // namespace gradflow::app
