// How `bench step` times a device that queues its work: an emulated one whose clock moves as the test says.
#include <gtest/gtest.h>

#include <cmath>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "apps/bench/step_clock.h"
#include "apps/common/network.h"
#include "gradflow/layers/models.h"
#include "kernels/cuda/simt.h"
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
  void zero(void* pointer, std::size_t bytes) override {
    if (bytes < kLarge) return SimtBackend::zero(pointer, bytes);
    log += 'z', now += 1e-3;
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

  static constexpr std::size_t kLarge = std::size_t{1} << 20;
  double now = 0;
  std::string log;  // waits, reads, timers' starts, stops and readings, steps, large clearings
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

// A network on that device, whose kernels take a millionth of a second each; their names go into the log as 'k'.
struct SmallNetwork {
  explicit SmallNetwork(double seconds = 1e-6)
      : model(build_model(parse_model("mlp:depth=3,width=8"), {.batch = 4, .features = 6, .classes = 3})),
        parameters(device, model.graph), optimizer(parameters, {}), executor(model.graph, parameters, &optimizer) {
    parameters.initialize(Initializer{}, 1);
    ::simt::on_launch = [this, seconds](const char*) { device.now += seconds, device.log += 'k'; };
    device.log.clear();
  }
  ~SmallNetwork() { ::simt::on_launch = nullptr; }

  QueueingGpu device;
  Model model;
  ParameterStore parameters;
  Optimizer optimizer;
  Executor executor;
};

TEST(BenchStep, LaunchesAreQueuedOneBehindTheOtherAndReadAtTheEnd) {
  SmallNetwork net;
  const LaunchTimes times = net.executor.time_launches([&] { net.device.log += 'L'; });
  ASSERT_EQ(times.launches.size(), net.executor.plan().launches.size());
  const std::size_t n = times.launches.size(), last_stop = net.device.log.rfind(')');
  const std::string queued = net.device.log.substr(0, last_stop + 1), read = net.device.log.substr(last_stop + 1);
  EXPECT_EQ(queued.find('L'), queued.find_first_not_of('w')) << "what leads comes first";
  EXPECT_EQ(queued.find_first_of("wr?", queued.find('L')), std::string::npos) << queued;
  EXPECT_EQ(read, "w" + std::string(n + 1, '?'));
  // Each launch has its own kernels' time, and what is around nothing has none.
  std::string kernels;
  for (const double t : times.launches) {
    const int count = static_cast<int>(std::lround(1e6 * t));
    EXPECT_NEAR(t, 1e-6 * count, 1e-12);
    kernels += "(" + std::string(static_cast<std::size_t>(count), 'k') + ")";
  }
  EXPECT_EQ("L" + kernels + "()", queued.substr(queued.find('L')));
  EXPECT_EQ(times.nothing, 0);
  EXPECT_GT(times.queueing, 0);
}

TEST(BenchStep, OfEachLaunchTheMedianOfAFewPassesBehindWorkThatKeepsTheDeviceBusy) {
  SmallNetwork net;
  const std::size_t n = net.executor.plan().launches.size();
  const double plain = net.executor.time_launches().launches.front();
  ASSERT_GT(plain, 0);
  // Two of the passes find the device slow, one faster than ever.
  net.device.log.clear();
  ::simt::on_launch = [&, passes = 0, was_large = false](const char*) mutable {
    const bool large = net.device.log.ends_with("z(");
    passes += large && !was_large;
    was_large = large;
    net.device.now += passes == 2 || passes == 4 ? 1 : passes == 1 ? 1e-7 : 1e-6;
  };
  const LaunchTimes times = time_launches(net.executor);
  EXPECT_NEAR(times.launches.front(), plain, 1e-12);
  std::size_t led = 0;
  for (std::size_t at = 0; (at = net.device.log.find("z(", at)) != std::string::npos; ++at) ++led;
  EXPECT_EQ(led, std::size_t{kLaunchPasses}) << net.device.log;
  EXPECT_EQ(times.launches.size(), n);
}

TEST(BenchStep, NothingIsClearedForTheHost) {
  struct Host final : kernels::cuda::SimtBackend {
    void zero(void* pointer, std::size_t bytes) override {
      EXPECT_LT(bytes, QueueingGpu::kLarge);
      SimtBackend::zero(pointer, bytes);
    }
  } host;
  const Model model = build_model(parse_model("mlp:depth=2,width=4"), {.batch = 2, .features = 3, .classes = 2});
  ParameterStore parameters(host, model.graph);
  parameters.initialize(Initializer{}, 1);
  Executor executor(model.graph, parameters);
  EXPECT_EQ(time_launches(executor).launches.size(), executor.plan().launches.size());
}

// A device of a mebibyte that counts what it gives away.
class CountingGpu final : public kernels::cuda::SimtBackend {
 public:
  explicit CountingGpu(bool host) : host_(host) {}
  bool is_host() const noexcept override { return host_; }
  void* allocate(std::size_t bytes) override {
    given += bytes;
    return SimtBackend::allocate(bytes);
  }
  std::size_t available_bytes() override { return (std::size_t{1} << 20) - given; }

  std::size_t given = 1000;  // a handle of a library's, say

 private:
  bool host_;
};

TEST(BenchStep, WhatADeviceHasGivenAwayIsCountedFromBeforeTheFirstArray) {
  NetworkOptions options;
  options.model = "mlp:depth=2,width=4", options.data = "synthetic:n=64,test=16,features=6", options.batch = 4;
  for (const bool host : {true, false}) {
    auto owned = std::make_unique<CountingGpu>(host);
    CountingGpu& device = *owned;
    const Network network = open_network(options, std::move(owned));
    const std::size_t network_bytes = device.given - 1000;
    EXPECT_GT(network_bytes, sizeof(float) * network.model.graph.parameter_count());
    const auto executor = network.make_executor(options, nullptr, {});
    const std::size_t all = device.given - 1000;
    EXPECT_GT(all, network_bytes);
    EXPECT_EQ(network.taken_bytes(), host ? std::nullopt : std::optional(all));
    device.given = 500;  // another program gave back
    EXPECT_EQ(network.taken_bytes(), host ? std::nullopt : std::optional(std::size_t{0}));
  }
}

}  // namespace
}  // namespace gradflow::app
