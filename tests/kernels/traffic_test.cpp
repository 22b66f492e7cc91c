// The yardstick of the benchmarks, and the timers they read.
#include "support.h"

namespace gradflow::kernels::test {
namespace {

class TrafficTest : public BackendTest {};

TEST_P(TrafficTest, CopiesAndAdds) {
  Random random(71);
  for (const std::size_t n : kSizes)
    for (const std::size_t offset : kOffsets) {
      SCOPED_TRACE(fmt::format("n={} offset={}", n, offset));
      const std::vector<float> a = random.wild<float>(n), b = random.wild<float>(n);
      DeviceArray<float> x(device(), a, offset), other(device(), b), copied(device(), n, -1.0f, offset),
          added(device(), n, -1.0f);
      device().move_memory({Traffic::copy, n, x.data(), nullptr, copied.data()});
      device().move_memory({Traffic::add, n, x.data(), other.data(), added.data()});
      device().move_memory({Traffic::add, n, x.data(), other.data(), x.data()});  // in place
      std::vector<float> sum(n);
      for (std::size_t i = 0; i < n; ++i) sum[i] = a[i] + b[i];
      EXPECT_TRUE(all_same(copied.get(), a));
      EXPECT_TRUE(all_same(added.get(), sum));
      EXPECT_TRUE(all_same(x.get(), sum));
    }
}

// A NaN at either end, or anywhere, is found: so everything was read.
TEST_P(TrafficTest, ReadsEverything) {
  Random random(72);
  for (const std::size_t n : kSizes)
    for (const std::size_t offset : kOffsets) {
      SCOPED_TRACE(fmt::format("n={} offset={}", n, offset));
      const std::vector<float> without = random.normals<float>(n);
      DeviceArray<float> x(device(), without, offset), y(device(), std::vector<float>{5});
      device().move_memory({Traffic::read, n, x.data(), nullptr, y.data()});
      EXPECT_EQ(y.front(), 5);
      if (n == 0) continue;
      for (const std::size_t at : {std::size_t{0}, n - 1, random.below(n)}) {
        std::vector<float> with = without;
        with[at] = NAN;
        DeviceArray<float> x2(device(), with, offset), y2(device(), std::vector<float>{5});
        device().move_memory({Traffic::read, n, x2.data(), nullptr, y2.data()});
        EXPECT_TRUE(std::isnan(y2.front())) << "NaN at " << at;
      }
    }
}

TEST_P(TrafficTest, TimersMeasureWhatWasQueuedBetween) {
  const std::size_t n = 100003;
  DeviceArray<float> x(device(), n, 1.0f), y(device(), n);
  const auto work = [&](int times) {
    for (int i = 0; i < times; ++i) device().move_memory({Traffic::copy, n, x.data(), nullptr, y.data()});
  };
  work(3);
  const auto timer = device().make_timer();
  const auto seconds = [&](int times) {
    timer->start();
    work(times);
    timer->stop();
    return timer->seconds();
  };
  // In turn, so that both meet the machine in the same state, and for longer where other programs are busy on it.
  double one = 1e30, many = 1e30;
  for (int round = 0; round < 5 || (round < 200 && !(many > 4 * one)); ++round) {
    one = std::min(one, seconds(1));
    many = std::min(many, seconds(40));
  }
  EXPECT_GT(one, 0);
  EXPECT_GT(many, 4 * one);  // 40 times in truth
  EXPECT_LT(many, 10);
}

TEST_P(TrafficTest, ATimerThatDidNotRunIsAnError) {
  const auto timer = device().make_timer();
  EXPECT_THROW(timer->seconds(), InternalError);
  timer->start();
  EXPECT_THROW(timer->seconds(), InternalError);
}

// Ranges and windows may be used without a profiler, and change nothing.
TEST_P(TrafficTest, ProfilersMayBeAbsent) {
  DeviceArray<float> x(device(), 100, 2.0f), y(device(), 100);
  const RangeName name = device().register_range("test copy");
  EXPECT_EQ(device().register_range("test copy"), name);
  device().profile_start();
  if (name) device().range_begin(name);
  device().move_memory({Traffic::copy, 100, x.data(), nullptr, y.data()});
  if (name) device().range_end();
  device().profile_stop();
  EXPECT_EQ(y.get(), x.get());
}

TEST_P(TrafficTest, TheCacheHasAPlausibleSize) {
  const std::size_t bytes = device().info().cache_bytes;
  EXPECT_TRUE(bytes == 0 || bytes >= std::size_t{1} << 16) << bytes;  // 0: the device does not tell
  EXPECT_LE(bytes, std::size_t{1} << 34);
}

GRADFLOW_TEST_ON_BACKENDS(TrafficTest);

}  // namespace
}  // namespace gradflow::kernels::test
