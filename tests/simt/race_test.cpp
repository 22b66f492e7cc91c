// What ThreadSanitizer must say about kernels that are wrong, and must not about kernels that are right.
// The listener below holds every other test of this program to "no race".
#include <gtest/gtest.h>

#include <fstream>
#include <functional>
#include <stdexcept>
#include <string>
#include <vector>

#include "kernels/cuda/simt.h"
#include "simt/race_reports.h"

namespace {

class NoRaces final : public testing::EmptyTestEventListener {
  void OnTestEnd(const testing::TestInfo&) override {
    for (const simt::Race& race : simt::take_races()) {
      ADD_FAILURE() << "data race between " << race.later << " and " << race.earlier << ", see stderr";
    }
  }
};
[[maybe_unused]] const bool kListens = [] {
  testing::UnitTest::GetInstance()->listeners().Append(new NoRaces);
  return true;
}();

constexpr unsigned kThreads = 64;

// "race_test.cpp:N" of the line that ends with this comment.
std::string line_with(const std::string& comment) {
  std::ifstream file(RACE_TEST_SOURCE);
  std::string line;
  for (int number = 1; std::getline(file, line); ++number) {
    if (line.ends_with("  // " + comment)) return "race_test.cpp:" + std::to_string(number);
  }
  throw std::runtime_error("no line ends with // " + comment);
}

// Runs a kernel; true when a race was reported. It must be between these two lines, whichever came first.
bool races(unsigned blocks, const std::string& one, const std::string& other,
           const std::function<void()>& kernel, std::size_t shared_bytes = 0) {
  bool found = false;
  for (const std::uint64_t seed : {0u, 5u}) {
    simt::set_seed(seed);
    simt::run("kernel", {blocks, 1, 1}, {kThreads, 1, 1}, kernel, shared_bytes);
    for (const simt::Race& r : simt::take_races()) {
      if (one.empty()) return true;
      const std::string first = line_with(one), second = line_with(other);
      EXPECT_TRUE((r.later == first && r.earlier == second) || (r.later == second && r.earlier == first))
          << r.later << " and " << r.earlier << ", not " << first << " and " << second;
      found = true;
    }
  }
  return found;
}

// In all of these kernels every value is the same, so that no result can tell.

template <bool kBarrier>
void neighbors(std::vector<int>& out) {
  SIMT_SHARED(int, values, [kThreads]);
  values[threadIdx.x] = 1;  // neighbors write
  if constexpr (kBarrier) __syncthreads();
  out[blockIdx.x * kThreads + threadIdx.x] = values[(threadIdx.x + 1) % kThreads];  // neighbors read
}

TEST(Races, ThreadsOfABlockNeedABarrier) {
  std::vector<int> out(7 * kThreads);
  EXPECT_FALSE(races(7, "neighbors write", "neighbors read", [&] { neighbors<true>(out); }));
  EXPECT_TRUE(races(7, "neighbors write", "neighbors read", [&] { neighbors<false>(out); }));
}

template <bool kBarrier>
void dynamic_neighbors(std::vector<int>& out) {
  SIMT_DYNAMIC_SHARED(int, values);
  values[threadIdx.x] = 1;  // dynamic write
  if constexpr (kBarrier) __syncthreads();
  out[blockIdx.x * kThreads + threadIdx.x] = values[(threadIdx.x + 1) % kThreads];  // dynamic read
}

TEST(Races, DynamicSharedMemoryIsEachBlocksOwn) {
  std::vector<int> out(7 * kThreads);
  constexpr std::size_t kBytes = kThreads * sizeof(int);
  EXPECT_FALSE(races(7, "dynamic write", "dynamic read", [&] { dynamic_neighbors<true>(out); }, kBytes));
  EXPECT_TRUE(races(7, "dynamic write", "dynamic read", [&] { dynamic_neighbors<false>(out); }, kBytes));
}

template <bool kSync>
void votes(std::vector<int>& out) {
  SIMT_SHARED(int, values, [kThreads]);
  values[threadIdx.x] = 1;         // voters write
  __ballot_sync(0xffffffffu, 1);  // orders no memory either
  if constexpr (kSync) __syncwarp();
  out[threadIdx.x] = values[threadIdx.x ^ 1u];  // voters read
}

TEST(Races, VotesOrderNoMemory) {
  std::vector<int> out(kThreads);
  EXPECT_FALSE(races(1, "voters write", "voters read", [&] { votes<true>(out); }));
  EXPECT_TRUE(races(1, "voters write", "voters read", [&] { votes<false>(out); }));
}

template <bool kSync>
void lanes(std::vector<int>& out) {
  SIMT_SHARED(int, values, [kThreads]);
  values[threadIdx.x] = 1;         // lanes write
  __shfl_sync(0xffffffffu, 1, 0);  // the lanes meet here, but this orders no memory
  if constexpr (kSync) __syncwarp();
  out[threadIdx.x] = values[threadIdx.x ^ 1u];  // lanes read
}

TEST(Races, LanesOfAWarpNeedOneToo) {
  std::vector<int> out(kThreads);
  EXPECT_FALSE(races(1, "lanes write", "lanes read", [&] { lanes<true>(out); }));
  EXPECT_TRUE(races(1, "lanes write", "lanes read", [&] { lanes<false>(out); }));
}

template <unsigned kMask, bool kLow, bool kHigh>
void part_of_a_warp(std::vector<int>& out) {
  SIMT_SHARED(int, values, [kThreads]);
  const unsigned t = threadIdx.x, l = t % 32;
  values[t] = 1;  // parts write
  __syncwarp((kMask >> l & 1u) != 0 ? kMask : ~kMask);
  if (l < 16 ? kLow : kHigh) out[t] = values[t ^ 16u];  // parts read
}

TEST(Races, SyncwarpOrdersItsMaskOnly) {
  std::vector<int> out(kThreads);
  EXPECT_FALSE(races(1, "parts write", "parts read", [&] { part_of_a_warp<0xffffffffu, true, true>(out); }));
  EXPECT_TRUE(races(1, "parts write", "parts read", [&] { part_of_a_warp<0xffffu, true, true>(out); }));
  // Nor does the half that meets first come before the other's reads.
  EXPECT_TRUE(races(1, "parts write", "parts read", [&] { part_of_a_warp<0xffffu, true, false>(out); }));
  EXPECT_TRUE(races(1, "parts write", "parts read", [&] { part_of_a_warp<0xffffu, false, true>(out); }));
}

// Lane 1 is in both groups, the later of which knows what the earlier did.
template <bool kChain>
void groups_in_turn(std::vector<int>& out) {
  SIMT_SHARED(int, values, [kThreads]);
  const unsigned t = threadIdx.x, l = t % 32;
  values[t] = 1;  // groups write
  if (l == 0 || (l == 1 && kChain)) __syncwarp(kChain ? 0x3u : 0x1u);
  if (l == 1 || l == 2) __syncwarp(0x6u);
  if (l == 2) out[t] = values[t - 2];  // groups read
}

TEST(Races, ALaneHandsOnWhatItsGroupsOrdered) {
  std::vector<int> out(kThreads);
  EXPECT_FALSE(races(1, "groups write", "groups read", [&] { groups_in_turn<true>(out); }));
  EXPECT_TRUE(races(1, "groups write", "groups read", [&] { groups_in_turn<false>(out); }));
}

TEST(Races, NothingOrdersBlocks) {
  int plain = 0, atomic = 0, mixed = 0;
  const auto write = [&] {
    if (threadIdx.x == 0) plain = 1;
  };
  const auto add = [&] {
    atomicAdd(&atomic, 0);
    store_relaxed(&atomic, 1);
  };
  const auto write_and_add = [&] {
    if (threadIdx.x != 5) return;
    if (blockIdx.x == 0) mixed = 1;
    if (blockIdx.x == 1) atomicAdd(&mixed, 0);
  };
  EXPECT_TRUE(races(2, "", "", write));
  EXPECT_FALSE(races(2, "", "", add)) << "atomics do not race with each other";
  EXPECT_TRUE(races(2, "", "", write_and_add));
}

TEST(Races, LaunchesAreOrdered) {
  std::vector<int> a(kThreads), b(kThreads);
  for (int i = 0; i < 3; ++i) {
    EXPECT_FALSE(races(1, "", "", [&] { a[threadIdx.x] = b[(threadIdx.x + 1) % kThreads] + 1; }));
    EXPECT_FALSE(races(1, "", "", [&] { b[threadIdx.x] = a[(threadIdx.x + 3) % kThreads] + 1; }));
    a[0] = b[1];
  }
}

// The block that comes last reads what the others wrote.
struct Pattern {
  bool fence = true, barrier = true, fence_after = true;
};

template <Pattern kHas>
void last_reads(std::vector<int>& partials, unsigned& ticket, std::vector<int>& out) {
  SIMT_SHARED(unsigned, is_last, [1]);
  partials[blockIdx.x * kThreads + threadIdx.x] = 1;  // partials are written
  if constexpr (kHas.fence) __threadfence();
  if constexpr (kHas.barrier) __syncthreads();
  if (threadIdx.x == 0) {
    is_last[0] = atomicAdd(&ticket, 1u) == gridDim.x - 1;
    if (is_last[0] != 0) atomicExch(&ticket, 0u);
  }
  __syncthreads();
  if (is_last[0] == 0) return;
  if constexpr (kHas.fence_after) __threadfence();
  const unsigned other = (blockIdx.x + 1) % gridDim.x;
  out[threadIdx.x] = partials[other * kThreads + (threadIdx.x + 1) % kThreads];  // partials are read
}

template <Pattern kHas>
bool last_reads_races() {
  std::vector<int> partials(3 * kThreads), out(kThreads);
  unsigned ticket = 0;
  return races(3, "partials are written", "partials are read",
               [&] { last_reads<kHas>(partials, ticket, out); });
}

TEST(Races, TheLastBlockNeedsFencesAroundItsTicket) {
  EXPECT_FALSE((last_reads_races<Pattern{}>()));
  EXPECT_TRUE((last_reads_races<Pattern{.fence = false}>()));
  EXPECT_TRUE((last_reads_races<Pattern{.barrier = false}>()));
  EXPECT_TRUE((last_reads_races<Pattern{.fence_after = false}>()));
}

}  // namespace
