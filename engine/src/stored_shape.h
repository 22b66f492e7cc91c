// Shapes of tensors as files hold them.
#pragma once

#include <cstdint>
#include <vector>

#include "gradflow/engine/tensor.h"

namespace gradflow {

inline std::vector<std::uint64_t> stored_shape(const Shape& shape) {
  std::vector<std::uint64_t> extents(shape.rank());
  for (std::size_t i = 0; i < extents.size(); ++i) extents[i] = static_cast<std::uint64_t>(shape[i]);
  return extents;
}

}  // namespace gradflow
