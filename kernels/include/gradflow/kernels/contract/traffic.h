// The yardstick of memory traffic. The rules of every call stand in kernels/backend.h.
#pragma once

#include <cstddef>
#include <cstdint>

namespace gradflow::kernels {

enum class Traffic : std::uint8_t {
  read,  // y[0] = NaN if a NaN is among a[n]; else nothing is written
  copy,  // y = a
  add,   // y = a + b
};

// Moves f32 numbers and does next to nothing with them: what other operations over as many bytes are
// measured against. Constant fills are the yardstick of writing.
struct MoveMemory {
  Traffic kind = Traffic::copy;
  std::size_t n = 0;
  const float* a = nullptr;
  const float* b = nullptr;  // add alone
  float* y = nullptr;        // may alias a or b, but not in `read`
};

}  // namespace gradflow::kernels
