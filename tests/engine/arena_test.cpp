// Packing of lifetimes: nothing that lives together overlaps, and little is wasted.
#include "gradflow/engine/arena.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <vector>

namespace gradflow {
namespace {

std::size_t aligned(std::size_t bytes) {
  return (bytes + kArenaAlignment - 1) / kArenaAlignment * kArenaAlignment;
}

TEST(Arena, NothingIsNothing) {
  EXPECT_EQ(pack({}), 0u);
  std::vector<Lifetime> empty(3);
  EXPECT_EQ(pack(empty), 0u);
}

TEST(Arena, OneAfterTheOtherSharesMemory) {
  std::vector<Lifetime> lives = {{100, 0, 1}, {100, 2, 3}, {100, 4, 4}};
  EXPECT_EQ(pack(lives), kArenaAlignment);
}

TEST(Arena, EndsAreInclusive) {
  std::vector<Lifetime> lives = {{100, 0, 2}, {100, 2, 3}};
  EXPECT_EQ(pack(lives), 2 * kArenaAlignment);
}

TEST(Arena, RandomLivesNeverOverlapAndWasteLittle) {
  std::mt19937 random(1);
  for (int round = 0; round < 200; ++round) {
    const int moments = 1 + static_cast<int>(random() % 60);
    std::vector<Lifetime> lives(random() % 80);
    for (Lifetime& l : lives) {
      l.bytes = random() % 3 ? random() % 5000 : 0;
      l.begin = static_cast<int>(random() % static_cast<unsigned>(moments));
      l.end = l.begin + static_cast<int>(random() % static_cast<unsigned>(moments));
    }
    const std::size_t size = pack(lives);
    std::size_t largest = 0, sum = 0;
    for (int t = 0; t < 2 * moments; ++t) {
      std::size_t live = 0;
      for (const Lifetime& l : lives) live += l.begin <= t && t <= l.end ? aligned(l.bytes) : 0;
      largest = std::max(largest, live);
    }
    for (std::size_t i = 0; i < lives.size(); ++i) {
      const Lifetime& a = lives[i];
      sum += aligned(a.bytes);
      EXPECT_EQ(a.offset % kArenaAlignment, 0u);
      EXPECT_LE(a.offset + a.bytes, size);
      for (std::size_t j = 0; j < i; ++j) {
        const Lifetime& b = lives[j];
        const bool together = a.begin <= b.end && b.begin <= a.end && a.bytes && b.bytes;
        EXPECT_FALSE(together && a.offset < b.offset + b.bytes && b.offset < a.offset + a.bytes)
            << "round " << round;
      }
    }
    EXPECT_GE(size, largest);
    EXPECT_LE(size, std::min(sum, 2 * largest)) << "round " << round;
  }
}

}  // namespace
}  // namespace gradflow
