// What the device can do at best, by the mixture of reading and writing, and when to disbelieve a result.
#pragma once

#include <cstddef>

#include "apps/bench/kernels/operands.h"

namespace gradflow::app {

// Bytes per second over arrays far larger than any cache: the best of several runs, because a ceiling is
// what is possible. Loops and kernels that compute next to nothing, and the backend's own copy and clear. A
// processor reads a line before it writes to it unless it has just read it: copy and add are tried in place
// too.
struct TrafficCeilings {
  double write = 0;  // nothing read
  double copy = 0;   // one read, one written
  double add = 0;    // two read, one written
  double read = 0;   // nothing written

  // For a mixture that lies between two measured ones, the larger of the two: memory turns round between
  // reading and writing, so that rates differ by tens of percent.
  double of(double read_bytes, double written_bytes) const noexcept;
};

struct Yardstick {
  TrafficCeilings ceilings;
  const char* reference = "";  // what shares are shares of: "copy" on a GPU, "triad" (add) on the host
  double reference_rate = 0;   // bytes per second, the median
  double launch_seconds = 0;   // a copy of one number, the median
  std::size_t elements = 0;    // of each f32 array
};

// Keeps the better of what it measures and `before`.
Yardstick measure_yardstick(kernels::Backend& backend, OperandPool& pool, int samples,
                            const Yardstick& before = {});

// How far above a ceiling a rate may come out by the clock's noise, when both were measured within seconds.
inline constexpr double kCeilingMargin = 0.03;

// True for a rate that cannot be: above the ceiling by more than the margin, or no positive number.
bool impossible(double bytes_per_second, double ceiling) noexcept;

// Starting the launch takes longer than its bytes would, at the ceiling's rate.
bool launch_bound(double bytes, double ceiling, double seconds_of_one_element) noexcept;

}  // namespace gradflow::app
