// The engine that runs CUDA threads on the host must itself catch what it is there to catch.
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <stdexcept>
#include <string>
#include <vector>

#include "kernels/cuda/reduce.cuh"

namespace {

constexpr dim3 kBlock{64, 1, 1};

std::string error_of(const dim3& block, const std::function<void()>& kernel) {
  try {
    simt::run("kernel", {1, 1, 1}, block, kernel);
  } catch (const std::logic_error& e) {
    return e.what();
  }
  return {};
}

void expect_error(const std::string& error, const std::string& part) {
  EXPECT_NE(error.find(part), std::string::npos) << "'" << error << "' lacks '" << part << "'";
  EXPECT_NE(error.find("engine_test.cpp:"), std::string::npos) << error;
}

// Thread t takes what its neighbor wrote. Without the barrier it may come before the neighbor.
template <bool kBarrier>
void rotate(std::vector<int>& out) {
  SIMT_SHARED(int, values, [64]);
  values[threadIdx.x] = static_cast<int>(threadIdx.x);
  if constexpr (kBarrier) __syncthreads();
  out[threadIdx.x] = values[(threadIdx.x + 1) % 64];
}

template <bool kBarrier>
int wrong_rotations(std::uint64_t seed) {
  simt::set_seed(seed);
  std::vector<int> out(64);
  simt::run("rotate", {1, 1, 1}, kBlock, [&] { rotate<kBarrier>(out); });
  int wrong = 0;
  for (int i = 0; i < 64; ++i) wrong += out[static_cast<std::size_t>(i)] != (i + 1) % 64;
  return wrong;
}

TEST(SimtEngine, BarriersOrderSharedMemory) {
  for (std::uint64_t seed = 0; seed < 20; ++seed) {
    EXPECT_EQ(wrong_rotations<true>(seed), 0) << "seed " << seed;
    EXPECT_GT(wrong_rotations<false>(seed), 0) << "a missing barrier went unnoticed, seed " << seed;
  }
}

TEST(SimtEngine, RunsEveryThreadOnceInADrawnOrder) {
  std::vector<std::vector<unsigned>> orders;
  for (const std::uint64_t seed : {0u, 1u, 2u}) {
    simt::set_seed(seed);
    std::vector<unsigned> order;
    simt::run("order", {3, 2, 1}, {4, 2, 1},
              [&] { order.push_back(((blockIdx.y * 3 + blockIdx.x) * 2 + threadIdx.y) * 4 + threadIdx.x); });
    orders.push_back(order);
    std::sort(order.begin(), order.end());
    for (unsigned i = 0; i < 48; ++i) ASSERT_EQ(order.at(i), i);
  }
  EXPECT_TRUE(std::is_sorted(orders[0].begin(), orders[0].end()));
  EXPECT_NE(orders[0], orders[1]);
  EXPECT_NE(orders[1], orders[2]);
}

TEST(SimtEngine, Shuffles) {
  for (std::uint64_t seed = 0; seed < 5; ++seed) {
    simt::set_seed(seed);
    std::vector<double> down(64), sent(64);
    simt::run("shuffle", {1, 1, 1}, kBlock, [&] {
      const auto own = static_cast<double>(threadIdx.x);
      down[threadIdx.x] = __shfl_down_sync(0xffffffffu, own, 3);
      sent[threadIdx.x] = __shfl_sync(0xffffffffu, own, 5);
    });
    for (unsigned i = 0; i < 64; ++i) {
      EXPECT_EQ(down[i], i % 32 + 3 < 32 ? i + 3 : i);
      EXPECT_EQ(sent[i], i / 32 * 32 + 5);
    }
  }
}

TEST(SimtEngine, Votes) {
  for (std::uint64_t seed = 0; seed < 5; ++seed) {
    simt::set_seed(seed);
    std::vector<unsigned> ballots(64), halves(64);
    std::vector<int> any(64), none(64), all(64), not_all(64);
    simt::run("vote", {1, 1, 1}, kBlock, [&] {
      const unsigned t = threadIdx.x;
      ballots[t] = __ballot_sync(0xffffffffu, t % 3 == 0 ? 4 : 0);  // any value but 0 is a yes
      any[t] = __any_sync(0xffffffffu, t == 40);
      not_all[t] = __all_sync(0xffffffffu, t != 40);
    });
    simt::run("vote", {1, 1, 1}, kBlock, [&] {
      const unsigned t = threadIdx.x, half = t % 32 < 16 ? 0x0000ffffu : 0xffff0000u;
      halves[t] = __ballot_sync(half, t % 2);
      none[t] = __any_sync(half, 0);
      all[t] = __all_sync(half, -1);
    });
    for (unsigned t = 0; t < 64; ++t) {
      unsigned thirds = 0;
      for (unsigned l = 0; l < 32; ++l) thirds |= ((t / 32 * 32 + l) % 3 == 0 ? 1u : 0u) << l;
      EXPECT_EQ(ballots[t], thirds);
      EXPECT_EQ(halves[t], t % 32 < 16 ? 0x0000aaaau : 0xaaaa0000u);
      EXPECT_EQ(any[t], t / 32 == 1);
      EXPECT_EQ(none[t], 0);
      EXPECT_EQ(all[t], 1);
      EXPECT_EQ(not_all[t], t / 32 == 0);
    }
  }
}

template <bool kBarrier>
int wrong_dynamic_rotations(std::uint64_t seed, std::size_t ints) {
  simt::set_seed(seed);
  std::vector<int> out(3 * 64);
  simt::run(
      "rotate", {3, 1, 1}, kBlock,
      [&] {
        SIMT_DYNAMIC_SHARED(int, values);
        SIMT_DYNAMIC_SHARED(int, same);
        values[threadIdx.x] = static_cast<int>(threadIdx.x);
        if constexpr (kBarrier) __syncthreads();
        out[blockIdx.x * 64 + threadIdx.x] = same[(threadIdx.x + 1) % 64];
      },
      ints * sizeof(int));
  int wrong = 0;
  for (int i = 0; i < 3 * 64; ++i) wrong += out[static_cast<std::size_t>(i)] != (i + 1) % 64;
  return wrong;
}

TEST(SimtEngine, DynamicSharedMemoryIsOrderedByBarriersToo) {
  for (std::uint64_t seed = 0; seed < 20; ++seed) {
    EXPECT_EQ(wrong_dynamic_rotations<true>(seed, 64 + seed % 2), 0) << "seed " << seed;
    EXPECT_GT(wrong_dynamic_rotations<false>(seed, 64), 0) << "a missing barrier went unnoticed, seed " << seed;
  }
}

TEST(SimtEngine, DynamicSharedMemoryStartsAsGarbageInEveryBlock) {
  simt::set_seed(0);
  std::vector<unsigned> seen;
  const auto kernel = [&] {
    SIMT_DYNAMIC_SHARED(unsigned, words);
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(words) % 16, 0u);
    seen.push_back(words[1]);
    words[1] = 7;
  };
  for (int launch = 0; launch < 2; ++launch) simt::run("garbage", {2, 1, 1}, {1, 1, 1}, kernel, 2 * sizeof(unsigned));
  EXPECT_EQ(seen, std::vector<unsigned>(4, 0xffffffffu));
}

TEST(SimtEngine, SharedMemoryStartsAsGarbage) {
  simt::set_seed(0);
  std::vector<unsigned> seen;
  simt::run("garbage", {2, 1, 1}, {1, 1, 1}, [&] {
    SIMT_SHARED(unsigned, word, [1]);
    seen.push_back(word[0]);
    word[0] = 7;
  });
  EXPECT_EQ(seen, (std::vector<unsigned>{0xffffffffu, 0xffffffffu}));
}

TEST(SimtEngine, ReportsBrokenRules) {
  for (const std::uint64_t seed : {0u, 3u, 9u}) {
    simt::set_seed(seed);
    expect_error(error_of(kBlock,
                          [] {
                            if (threadIdx.x < 32) __syncthreads();
                          }),
                 "have left the block");
    expect_error(error_of(kBlock,
                          [] {
                            if (threadIdx.x < 32) {
                              __syncthreads();
                            } else {
                              __syncthreads();
                            }
                          }),
                 "different barriers");
    expect_error(error_of(kBlock, [] { __shfl_sync(threadIdx.x % 32 == 0 ? 0xffffffffu : 2u, 1, 0); }),
                 "mask");
    expect_error(error_of(kBlock, [] { __ballot_sync(threadIdx.x % 32 == 0 ? 0xffffffffu : 2u, 1); }), "mask");
    expect_error(error_of(kBlock, [] { __any_sync(threadIdx.x % 32 < 16 ? 0xffffffffu : 0xffff0000u, 1); }), "");
    expect_error(error_of({48, 1, 1}, [] { __all_sync(0xffffffffu, 1); }), "has left");
    expect_error(error_of(kBlock, [] { SIMT_DYNAMIC_SHARED(int, values); values[0] = 1; }), "asks for none");
    expect_error(error_of({48, 1, 1}, [] { __syncwarp(); }), "has left");
    expect_error(error_of(kBlock,
                          [] {
                            if (threadIdx.x == 40) return;
                            __syncwarp();
                          }),
                 "");
    EXPECT_EQ(error_of(kBlock, [] { __syncthreads(); }), "") << "an error must leave the engine usable";
  }
}

}  // namespace
