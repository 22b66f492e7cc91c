#include "apps/bench/step_clock.h"

#include <algorithm>
#include <cmath>
#include <utility>

namespace gradflow::app {

StepClock::StepClock(kernels::Backend& backend, std::function<void()> step)
    : backend_(backend), step_(std::move(step)), timer_(backend.make_timer()) {}

double StepClock::seconds(int steps) {
  backend_.synchronize();
  timer_->start();
  for (int i = 0; i < steps; ++i) step_();
  timer_->stop();
  const double seconds = timer_->seconds();
  backend_.synchronize();  // says what failed
  return seconds / steps;
}

int steps_of_sample(const kernels::Backend& backend, double seconds) {
  const double sample = backend.is_host() ? 2e-3 : 20e-3;
  return static_cast<int>(std::clamp(std::ceil(sample / std::max(seconds, 1e-9)), 1.0, 10000.0));
}

const char* clock_text(bool host) { return host ? "the steady clock" : "device events"; }

}  // namespace gradflow::app
