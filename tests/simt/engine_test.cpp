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
      const unsigned t = threadIdx.x, half = t % 32 < 16 ? 0x0000ffffu : 0xffff0000u;
      ballots[t] = __ballot_sync(0xffffffffu, t % 3 == 0 ? 4 : 0);  // any value but 0 is a yes
      halves[t] = __ballot_sync(half, t % 2);
      any[t] = __any_sync(0xffffffffu, t == 40);
      none[t] = __any_sync(half, 0);
      not_all[t] = __all_sync(0xffffffffu, t != 40);
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

// Branches of a warp may each hold collectives of their own, as many as they like, and lanes of a branch may meet
// in groups before all of them do: every group waits for its own lanes alone.
TEST(SimtEngine, GroupsOfAWarpMeetByThemselves) {
  constexpr unsigned kAll = 0xffffffffu, kLow = 0x000000ffu, kHigh = kAll & ~kLow, kPair = 0x3u, kOverlap = 0x6u;
  for (std::uint64_t seed = 0; seed < 20; ++seed) {
    simt::set_seed(seed);
    std::vector<unsigned> sums(64), ballots(64), pairs(64), last(64);
    simt::run("groups", {1, 1, 1}, kBlock, [&] {
      const unsigned t = threadIdx.x, l = t % 32;
      if (l < 8) {
        sums[t] = l;
        for (int delta = 4; delta > 0; delta /= 2) sums[t] += __shfl_down_sync(kLow, sums[t], delta);
        if (l < 2) pairs[t] = __ballot_sync(kPair, l == 1);          // while lanes 2 to 7 are further on
        if (l == 1 || l == 2) pairs[t] += __ballot_sync(kOverlap, 1);  // lane 1 belongs to both, in turn
        __syncwarp(kLow);
      } else {
        ballots[t] = __ballot_sync(kHigh, l % 2);
      }
      last[t] = __shfl_sync(kAll, t, 31);
    });
    for (unsigned t = 0; t < 64; ++t) {
      const unsigned l = t % 32;
      EXPECT_EQ(sums[t / 32 * 32], 28u);
      EXPECT_EQ(pairs[t], l == 0 ? 2u : l == 1 ? 8u : l == 2 ? 6u : 0u);
      EXPECT_EQ(ballots[t], l < 8 ? 0u : 0xaaaaaaaau & kHigh);
      EXPECT_EQ(last[t], t / 32 * 32 + 31) << "seed " << seed;
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
    // The upper half meets and is gone; the lower half named it, too.
    expect_error(error_of(kBlock, [] { __any_sync(threadIdx.x % 32 < 16 ? 0xffffffffu : 0xffff0000u, 1); }),
                 "has left");
    expect_error(error_of({48, 1, 1}, [] { __all_sync(0xffffffffu, 1); }), "has left");
    expect_error(error_of(kBlock, [] { SIMT_DYNAMIC_SHARED(int, values); values[0] = 1; }), "asks for none");
    expect_error(error_of({48, 1, 1}, [] { __syncwarp(); }), "has left");
    expect_error(error_of(kBlock,
                          [] {
                            if (threadIdx.x == 40) return;
                            __syncwarp();
                          }),
                 "lane 8, which has left");
    EXPECT_EQ(error_of(kBlock, [] { __syncthreads(); }), "") << "an error must leave the engine usable";
  }
}

// What a device would refuse to launch.
TEST(SimtEngine, RefusesLaunchesBeyondTheLimits) {
  const auto launch = [](const dim3& grid, const dim3& block, std::size_t shared_bytes = 0) {
    int threads = 0;
    simt::run("kernel", grid, block, [&] { ++threads; }, shared_bytes);
    return threads;
  };
  EXPECT_EQ(launch({1, 65535, 1}, {1, 1, 1}), 65535);
  EXPECT_EQ(launch({1, 1, 1}, {1, 16, 64}, 49152), 1024);
  for (const dim3& grid : {dim3{0, 1, 1}, dim3{1, 0, 1}, dim3{1, 65536, 1}, dim3{1, 1, 65536}, dim3{0x80000000u, 1, 1}})
    EXPECT_THROW(launch(grid, {1, 1, 1}), std::logic_error) << grid.x << "," << grid.y << "," << grid.z;
  for (const dim3& block : {dim3{0, 1, 1}, dim3{1025, 1, 1}, dim3{1, 1, 65}, dim3{65536, 65536, 1}, dim3{3, 1431655766, 1}})
    EXPECT_THROW(launch({1, 1, 1}, block), std::logic_error) << block.x << "," << block.y << "," << block.z;
  EXPECT_THROW(launch({1, 1, 1}, {1, 1, 1}, 49153), std::logic_error);
}

TEST(SimtEngine, ReportsGroupsThatWaitForEachOther) {
  constexpr unsigned kAll = 0xffffffffu;
  for (const std::uint64_t seed : {0u, 3u, 9u}) {
    simt::set_seed(seed);
    // Masks that share lanes: 0 and 1 wait for each other, each in a group of its own, and so do 1 and 2.
    expect_error(error_of(kBlock,
                          [] {
                            constexpr unsigned kMasks[] = {0x3, 0x7, 0x6};
                            const unsigned l = threadIdx.x % 32;
                            if (l < 3) __syncwarp(kMasks[l]);
                          }),
                 "meet at different collectives");
    // The same mask in two branches, and in one branch two kinds.
    expect_error(error_of(kBlock,
                          [] {
                            if (threadIdx.x % 32 < 16) {
                              __shfl_sync(kAll, 1, 0);
                            } else {
                              __shfl_sync(kAll, 1, 0);
                            }
                          }),
                 "meet at different collectives");
    expect_error(error_of(kBlock, [] { threadIdx.x % 32 < 16 ? __ballot_sync(kAll, 1) : __shfl_sync(kAll, 1u, 0); }),
                 "meet at different collectives");
    // In a ring: 0 waits for 1, 1 for 2 and 2 for 0.
    expect_error(error_of(kBlock,
                          [] {
                            const unsigned l = threadIdx.x % 32;
                            if (l < 3) __syncwarp((1u << l) | (1u << ((l + 1) % 3)));
                          }),
                 "as does a lane it names");
    // A lane of the mask is at the block's barrier.
    expect_error(error_of(kBlock,
                          [] {
                            if (threadIdx.x == 40) __syncthreads();
                            __syncwarp();
                          }),
                 "as does a lane it names");
  }
}

}  // namespace
