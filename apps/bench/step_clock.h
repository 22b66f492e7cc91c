// The clocks of a training step: of steps in a row, and of its launches one by one.
#pragma once

#include <functional>
#include <memory>

#include "gradflow/engine/executor.h"

namespace gradflow::app {

class StepClock {
 public:
  StepClock(kernels::Backend& backend, std::function<void()> step);

  // Of one step, as the mean of so many, by the backend's timer. They are queued one behind the other: nothing is waited
  // for or read back before the last.
  double seconds(int steps);

 private:
  kernels::Backend& backend_;
  std::function<void()> step_;
  std::unique_ptr<kernels::Timer> timer_;
};

// How many steps of so many seconds make a sample. On the host 2 ms or more, so that the clock does not count; on a device
// that queues its work 20 ms, as scripts/bench_torch_step.py has it for PyTorch, so that the first launch does not.
int steps_of_sample(const kernels::Backend& backend, double seconds);

inline constexpr int kLaunchPasses = 5;

// Executor::time_launches() so many times, of each launch the median. A device that queues its work clears memory before each
// pass, for about twice as long as the host takes to queue the launches, so that none of them waits for the host.
LaunchTimes time_launches(Executor& executor);

// What the backend's timer is, for whoever reads a time.
const char* clock_text(bool host);

}  // namespace gradflow::app
