#include "apps/bench/step_clock.h"

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include "apps/bench/median.h"
#include "gradflow/engine/memory.h"

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

LaunchTimes time_launches(Executor& executor) {
  kernels::Backend& backend = executor.backend();
  constexpr std::size_t kBytes = std::size_t{128} << 20;  // takes a device longer than the host takes to ask for it
  DeviceMemory room(backend, backend.is_host() ? 0 : kBytes);
  StepClock clearing(backend, [&] { backend.zero(room.data(), room.bytes()); });
  double host_seconds = 0, seconds = 0;
  if (!backend.is_host()) {
    host_seconds = executor.time_launches().queueing;  // the first pass sets up what the launches need
    clearing.seconds(1);
    seconds = clearing.seconds(4);
  }
  const auto lead = [&] {
    if (backend.is_host()) return;
    const int times = static_cast<int>(std::clamp(std::ceil(2 * host_seconds / std::max(seconds, 1e-9)), 1.0, 500.0));
    for (int i = 0; i < times; ++i) backend.zero(room.data(), room.bytes());
  };
  std::vector<LaunchTimes> passes;
  for (int pass = 0; pass < kLaunchPasses; ++pass) passes.push_back(executor.time_launches(lead));
  const auto median = [&](auto part) {
    std::vector<double> numbers;
    for (const LaunchTimes& times : passes) numbers.push_back(part(times));
    return median_of(std::move(numbers));
  };
  LaunchTimes times;
  for (std::size_t i = 0; i < passes.front().launches.size(); ++i)
    times.launches.push_back(median([i](const LaunchTimes& t) { return t.launches[i]; }));
  times.nothing = median([](const LaunchTimes& t) { return t.nothing; });
  times.queueing = median([](const LaunchTimes& t) { return t.queueing; });
  return times;
}

const char* clock_text(bool host) { return host ? "the steady clock" : "device events"; }

}  // namespace gradflow::app
