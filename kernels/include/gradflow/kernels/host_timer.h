// The steady clock as a Timer, for backends whose launches run before they return.
#pragma once

#include <chrono>
#include <optional>

#include "gradflow/kernels/backend.h"
#include "gradflow/kernels/error.h"

namespace gradflow::kernels {

class HostTimer final : public Timer {
 public:
  void start() override {
    start_ = Clock::now();
    stop_.reset();
  }
  void stop() override { stop_ = Clock::now(); }
  double seconds() override {
    if (!start_ || !stop_) throw InternalError("a timer was read that was not started and stopped");
    return std::chrono::duration<double>(*stop_ - *start_).count();
  }

 private:
  using Clock = std::chrono::steady_clock;
  std::optional<Clock::time_point> start_, stop_;
};

}  // namespace gradflow::kernels
