#include "gradflow/engine/schedule.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "engine/temp_dir.h"

namespace gradflow {
namespace {

using test::has;
using test::user_error;

std::string schedule_error(std::string_view spec) {
  return user_error([&] { Schedule schedule(spec); });
}

TEST(Schedule, Constant) {
  EXPECT_EQ(Schedule().learning_rate(0, 10, 0.5), 0.5);
  const Schedule schedule("constant");
  for (std::uint64_t step : {0u, 5u, 9u, 10u, 1000u}) EXPECT_EQ(schedule.learning_rate(step, 10, 0.3), 0.3);
  EXPECT_EQ(schedule.learning_rate(0, 1, 0.0), 0.0);
}

// Within a few roundings of f64: the closed forms below differ from the code in order of operations.
constexpr double kTolerance = 1e-14;

TEST(Schedule, StepDropsAtItsSteps) {
  const Schedule every("step:every=10,factor=0.5");
  EXPECT_EQ(every.learning_rate(0, 100, 1.0), 1.0);
  EXPECT_EQ(every.learning_rate(9, 100, 1.0), 1.0);
  EXPECT_EQ(every.learning_rate(10, 100, 1.0), 0.5);
  EXPECT_EQ(every.learning_rate(39, 100, 1.0), 0.125);
  const Schedule at("step:at=32000/48000");
  EXPECT_EQ(at.learning_rate(31999, 64000, 0.1), 0.1);
  EXPECT_NEAR(at.learning_rate(32000, 64000, 0.1), 0.01, kTolerance);
  EXPECT_NEAR(at.learning_rate(47999, 64000, 0.1), 0.01, kTolerance);
  EXPECT_NEAR(at.learning_rate(48000, 64000, 0.1), 0.001, kTolerance);
  // Milestones count from the first step, with a warm-up too.
  const Schedule warm("step:at=20,factor=0.5,warmup=10");
  EXPECT_EQ(warm.learning_rate(19, 100, 1.0), 1.0);
  EXPECT_EQ(warm.learning_rate(20, 100, 1.0), 0.5);
}

TEST(Schedule, Cosine) {
  const Schedule schedule("cosine");
  EXPECT_EQ(schedule.learning_rate(0, 100, 0.2), 0.2);
  EXPECT_NEAR(schedule.learning_rate(50, 100, 0.2), 0.1, kTolerance);
  EXPECT_NEAR(schedule.learning_rate(25, 100, 1.0), (1 + std::sqrt(0.5)) / 2, kTolerance);
  EXPECT_NEAR(schedule.learning_rate(99, 100, 1.0), std::pow(std::sin(M_PI / 200), 2), kTolerance);
  EXPECT_EQ(schedule.learning_rate(100, 100, 1.0), 0.0);
  EXPECT_EQ(schedule.learning_rate(500, 100, 1.0), 0.0);
  const Schedule to("cosine:final=0.2");
  EXPECT_NEAR(to.learning_rate(50, 100, 1.0), 0.6, kTolerance);
  EXPECT_EQ(to.learning_rate(100, 100, 1.0), 0.2);
  for (std::uint64_t step = 1; step < 100; ++step)
    EXPECT_LT(to.learning_rate(step, 100, 1.0), to.learning_rate(step - 1, 100, 1.0));
}

TEST(Schedule, OneCycle) {
  const Schedule schedule("one-cycle:peak_at=0.25,start=0.1,final=0.01");
  EXPECT_NEAR(schedule.learning_rate(0, 400, 2.0), 0.2, kTolerance);
  EXPECT_NEAR(schedule.learning_rate(50, 400, 2.0), 1.1, kTolerance);    // half way up
  EXPECT_EQ(schedule.learning_rate(100, 400, 2.0), 2.0);                 // the peak
  EXPECT_NEAR(schedule.learning_rate(250, 400, 2.0), 1.01, kTolerance);  // half way down
  EXPECT_EQ(schedule.learning_rate(400, 400, 2.0), 0.02);
  EXPECT_NEAR(Schedule("one-cycle").learning_rate(0, 10, 1.0), 0.04, kTolerance);
  EXPECT_EQ(Schedule("one-cycle:peak_at=0").learning_rate(0, 10, 1.0), 1.0);
  EXPECT_EQ(Schedule("one-cycle:peak_at=1").learning_rate(10, 10, 1.0), 1.0);
}

TEST(Schedule, WarmUpIsLinearAndLeavesTheRestToTheSchedule) {
  const Schedule schedule("cosine:warmup=10");
  EXPECT_NEAR(schedule.learning_rate(0, 110, 1.0), 0.1, kTolerance);
  EXPECT_NEAR(schedule.learning_rate(4, 110, 1.0), 0.5, kTolerance);
  EXPECT_EQ(schedule.learning_rate(9, 110, 1.0), 1.0);
  EXPECT_EQ(schedule.learning_rate(10, 110, 1.0), 1.0);
  EXPECT_NEAR(schedule.learning_rate(60, 110, 1.0), 0.5, kTolerance);
  const Schedule from("constant:warmup=4,warmup_from=0.5");
  EXPECT_NEAR(from.learning_rate(0, 10, 1.0), 0.625, kTolerance);
  EXPECT_NEAR(from.learning_rate(1, 10, 1.0), 0.75, kTolerance);
  EXPECT_EQ(from.learning_rate(3, 10, 1.0), 1.0);
}

TEST(Schedule, AFlatWarmUpJumpsBehindItsLastStep) {
  const Schedule paper("step:at=32000/48000,factor=0.1,warmup=400,warmup_at=0.1");
  const auto rate = [&](std::uint64_t step) { return paper.learning_rate(step, 64000, 0.1); };
  for (const std::uint64_t step : {0u, 1u, 200u, 399u}) EXPECT_NEAR(rate(step), 0.01, kTolerance) << step;
  EXPECT_EQ(rate(400), 0.1);
  EXPECT_EQ(rate(31999), 0.1);
  EXPECT_NEAR(rate(32000), 0.01, kTolerance);
  EXPECT_NEAR(rate(48000), 0.001, kTolerance);
  EXPECT_EQ(Schedule("constant:warmup=3,warmup_at=0").learning_rate(2, 9, 1), 0);
}

TEST(Schedule, BadTextsAreRefused) {
  EXPECT_TRUE(has(schedule_error("constant:warmup_at=0.1"), "'warmup_at' needs 'warmup'"));
  EXPECT_TRUE(has(schedule_error("constant:warmup=5,warmup_at=2"), "from 0 to 1"));
  EXPECT_TRUE(has(schedule_error("constant:warmup=5,warmup_at=0.1,warmup_from=0.1"), "either 'warmup_from', a rise, or 'warmup_at'"));
  EXPECT_TRUE(has(schedule_error("cosin"), "did you mean 'cosine'? (names: constant, step, cosine, one-cycle)"));
  EXPECT_TRUE(has(schedule_error(""), "the name is missing"));
  EXPECT_TRUE(has(schedule_error("step"), "expected either 'every' or 'at'"));
  EXPECT_TRUE(has(schedule_error("step:every=3,at=4"), "expected either 'every' or 'at'"));
  EXPECT_TRUE(has(schedule_error("step:every=0"), "every=0"));
  EXPECT_TRUE(has(schedule_error("step:at=5/5"), "'at=5/5' is not ascending"));
  EXPECT_TRUE(has(schedule_error("step:at=9/5"), "not ascending"));
  EXPECT_TRUE(has(schedule_error("step:every=5,factor=nan"), "factor=nan"));
  EXPECT_TRUE(has(schedule_error("step:every=5,factor=-1"), "factor=-1"));
  EXPECT_TRUE(has(schedule_error("cosine:final=2"), "from 0 to 1"));
  EXPECT_TRUE(has(schedule_error("cosine:every=2"), "unknown key 'every'"));
  EXPECT_TRUE(has(schedule_error("constant:warmup=-1"), "warmup=-1"));
  EXPECT_TRUE(has(schedule_error("constant:warmup_from=0.1"), "needs 'warmup'"));
  EXPECT_TRUE(has(schedule_error("one-cycle:peak=0.1"), "did you mean 'peak_at'?"));
}

TEST(Schedule, BadRatesAndLengthsAreRefused) {
  const Schedule schedule("cosine:warmup=10");
  const double nan = std::numeric_limits<double>::quiet_NaN(), inf = std::numeric_limits<double>::infinity();
  for (double base : {-0.1, nan, inf, -inf})
    EXPECT_TRUE(has(user_error([&] { schedule.learning_rate(0, 100, base); }), "the learning rate must be"))
        << base;
  EXPECT_TRUE(has(user_error([&] { schedule.learning_rate(0, 0, 0.1); }), "no steps"));
  EXPECT_TRUE(has(user_error([&] { schedule.check_length(10); }),
                  "a warm-up of 10 steps does not fit into a run of 10"));
  schedule.check_length(11);
}

}  // namespace
}  // namespace gradflow
