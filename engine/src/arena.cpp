#include "gradflow/engine/arena.h"

#include <algorithm>
#include <map>
#include <numeric>
#include <set>
#include <tuple>
#include <utility>
#include <vector>

namespace gradflow {
namespace {

// Free gaps of the block, by address and by size. The block grows at its end when nothing fits.
class FreeList {
 public:
  std::size_t take(std::size_t bytes) {
    const auto fit = by_size_.lower_bound({bytes, 0});
    if (fit != by_size_.end()) {
      const auto [size, offset] = *fit;
      remove(by_offset_.find(offset));
      if (size > bytes) insert(offset + bytes, size - bytes);
      return offset;
    }
    std::size_t offset = end_;
    if (!by_offset_.empty()) {  // a gap that touches the end is used and extended
      const auto last = std::prev(by_offset_.end());
      if (last->first + last->second == end_) {
        offset = last->first;
        remove(last);
      }
    }
    end_ = offset + bytes;
    return offset;
  }

  void give(std::size_t offset, std::size_t bytes) {
    auto next = by_offset_.lower_bound(offset);
    if (next != by_offset_.end() && offset + bytes == next->first) {
      bytes += next->second;
      next = remove(next);
    }
    if (next != by_offset_.begin()) {
      const auto before = std::prev(next);
      if (before->first + before->second == offset) {
        offset = before->first;
        bytes += before->second;
        remove(before);
      }
    }
    insert(offset, bytes);
  }

  std::size_t size() const noexcept { return end_; }

 private:
  using ByOffset = std::map<std::size_t, std::size_t>;
  ByOffset by_offset_;
  std::set<std::pair<std::size_t, std::size_t>> by_size_;
  std::size_t end_ = 0;

  void insert(std::size_t offset, std::size_t bytes) {
    by_offset_.emplace(offset, bytes);
    by_size_.emplace(bytes, offset);
  }
  ByOffset::iterator remove(ByOffset::iterator gap) {
    by_size_.erase({gap->second, gap->first});
    return by_offset_.erase(gap);
  }
};

std::size_t aligned(std::size_t bytes) { return (bytes + kArenaAlignment - 1) / kArenaAlignment * kArenaAlignment; }

}  // namespace

std::size_t pack(std::span<Lifetime> lifetimes) {
  std::vector<std::size_t> by_begin(lifetimes.size()), by_end;
  std::iota(by_begin.begin(), by_begin.end(), std::size_t{0});
  by_end = by_begin;
  // Within one moment the largest goes first and finds the best gap; the index makes the order total.
  std::sort(by_begin.begin(), by_begin.end(), [&](std::size_t a, std::size_t b) {
    const Lifetime &x = lifetimes[a], &y = lifetimes[b];
    return std::tuple(x.begin, y.bytes, a) < std::tuple(y.begin, x.bytes, b);
  });
  std::sort(by_end.begin(), by_end.end(), [&](std::size_t a, std::size_t b) {
    return std::pair(lifetimes[a].end, a) < std::pair(lifetimes[b].end, b);
  });

  FreeList free;
  auto dying = by_end.begin();
  for (const std::size_t i : by_begin) {
    Lifetime& life = lifetimes[i];
    for (; dying != by_end.end() && lifetimes[*dying].end < life.begin; ++dying)
      if (lifetimes[*dying].bytes) free.give(lifetimes[*dying].offset, aligned(lifetimes[*dying].bytes));
    life.offset = life.bytes ? free.take(aligned(life.bytes)) : 0;
  }
  return free.size();
}

}  // namespace gradflow
