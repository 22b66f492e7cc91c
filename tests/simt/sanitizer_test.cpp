// AddressSanitizer watches what the emulated kernels touch: accesses beyond an array in device memory and beyond a
// block's shared memory end the program with a report. In builds without it there is nothing to show.
#include <gtest/gtest.h>

#include <vector>

#include "kernels/cuda/simt.h"

#ifdef __SANITIZE_ADDRESS__

namespace {

constexpr unsigned kOverrunThreads = 64;

// Volatile, so that the compiler cannot see the end of the array.
void run_over(unsigned past_the_end, bool dynamic) {
  simt::set_seed(0);
  simt::run(
      "overrun", {2, 1, 1}, {kOverrunThreads, 1, 1},
      [=] {
        SIMT_SHARED(float, fixed, [kOverrunThreads]);
        SIMT_DYNAMIC_SHARED(float, drawn);
        float* const volatile values = dynamic ? drawn : fixed;
        values[threadIdx.x + past_the_end] = 1;
      },
      kOverrunThreads * sizeof(float));
}

void write_global(unsigned past_the_end) {
  simt::set_seed(0);
  std::vector<float> memory(2 * kOverrunThreads);
  float* const volatile values = memory.data();
  simt::run("global", {2, 1, 1}, {kOverrunThreads, 1, 1},
            [&] { values[blockIdx.x * kOverrunThreads + threadIdx.x + past_the_end] = 1; });
}

TEST(SimtSanitizerDeathTest, SeesWritesBeyondDeviceMemory) {
  write_global(0);
  EXPECT_DEATH(write_global(1), "heap-buffer-overflow");
}

TEST(SimtSanitizerDeathTest, SeesWritesBeyondSharedMemory) {
  run_over(0, false);
  EXPECT_DEATH(run_over(1, false), "global-buffer-overflow");
}

TEST(SimtSanitizerDeathTest, SeesWritesBeyondDynamicSharedMemory) {
  run_over(0, true);
  EXPECT_DEATH(run_over(1, true), "heap-buffer-overflow");
}

}  // namespace

#endif
