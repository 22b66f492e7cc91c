// How `bench step` times a device that queues its work: an emulated one whose clock moves as the test says.
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "apps/bench/step_clock.h"
#include "simt/simt_backend.h"

namespace gradflow::app {
namespace {

// Work has its place on the device's clock, and what the host does is written down.
class QueueingGpu final : public kernels::cuda::SimtBackend {
 public:
  bool is_host() const noexcept override { return false; }
  void synchronize() override { log += 'w'; }
  void copy_out(void* host, const void* device, std::size_t bytes) override {
    log += 'r';
    SimtBackend::copy_out(host, device, bytes);
  }
  std::unique_ptr<kernels::Timer> make_timer() override {
    struct Events final : kernels::Timer {
      explicit Events(QueueingGpu& device) : of(device) {}
      void start() override { of.log += '(', from = of.now; }
      void stop() override { of.log += ')', to = of.now; }
      double seconds() override { return of.log += '?', to - from; }
      QueueingGpu& of;
      double from = 0, to = 0;
    };
    return std::make_unique<Events>(*this);
  }

  double now = 0;
  std::string log;  // waits, reads, timers' starts, stops and readings, steps
};

TEST(BenchStep, ASampleIsQueuedAsAWholeAndTimedByTheDevice) {
  QueueingGpu device;
  StepClock clock(device, [&] { device.now += 0.25, device.log += 's'; });
  EXPECT_EQ(clock.seconds(3), 0.25);  // the host's clock would tell next to nothing
  EXPECT_EQ(device.log, "w(sss)?w");
}

TEST(BenchStep, ASampleOfADeviceLastsAboutTwentyMilliseconds) {
  const QueueingGpu device;
  const kernels::cuda::SimtBackend host;
  EXPECT_EQ(steps_of_sample(device, 0.3e-3), 67);
  EXPECT_EQ(steps_of_sample(host, 0.3e-3), 7);
  EXPECT_EQ(steps_of_sample(device, 0.15), 1);
  EXPECT_EQ(steps_of_sample(device, 0), 10000);
}

}  // namespace
}  // namespace gradflow::app
