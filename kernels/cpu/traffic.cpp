// The yardstick: reading, copying, adding, as fast as plain loops go.
#include <atomic>
#include <cstring>
#include <limits>

#include "functions.h"

namespace gradflow::kernels::cpu {
namespace {

// No early end: the loop has no branch, and the whole range is read.
bool holds_nan(const float* a, std::size_t n) {
  unsigned found = 0;
  for (std::size_t i = 0; i < n; ++i) found |= static_cast<unsigned>(a[i] != a[i]);
  return found != 0;
}

}  // namespace

void move_memory(const Context& context, const MoveMemory& a) {
  if (a.n == 0) return;
  std::atomic<bool> nan = false;
  for_each_chunk(context, a.n, kSerialCheap, [&](std::size_t, std::size_t begin, std::size_t end) {
    const std::size_t n = end - begin;
    switch (a.kind) {
      case Traffic::read:
        if (holds_nan(a.a + begin, n)) nan.store(true, std::memory_order_relaxed);
        return;
      case Traffic::copy:
        if (a.y != a.a) std::memcpy(a.y + begin, a.a + begin, n * sizeof(float));
        return;
      case Traffic::add:
        for (std::size_t i = begin; i < end; ++i) a.y[i] = a.a[i] + a.b[i];
        return;
    }
  });
  if (nan) *a.y = std::numeric_limits<float>::quiet_NaN();
}

}  // namespace gradflow::kernels::cpu
