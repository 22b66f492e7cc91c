// bf16 numbers beside the f32 numbers they stand for.
#pragma once

#include <vector>

#include "gradflow/kernels/bf16.h"
#include "support.h"

namespace gradflow::kernels::test {

using Wide = std::vector<float>;
using Narrow = std::vector<Bf16>;

inline Wide widened(const Narrow& x) {
  Wide wide;
  for (const Bf16 v : x) wide.push_back(to_float(v));
  return wide;
}
inline Narrow rounded(const Wide& x) {
  Narrow narrow;
  for (const float v : x) narrow.push_back(to_bf16(v));
  return narrow;
}
inline ::testing::AssertionResult all_same(const Narrow& a, const Narrow& b) {
  return all_same(widened(a), widened(b));
}

}  // namespace gradflow::kernels::test
