#include "gradflow/engine/tensor.h"

#include <fmt/format.h>

#include <algorithm>

#include "gradflow/kernels/error.h"

namespace gradflow {

Shape::Shape(std::initializer_list<std::int64_t> extents) : rank_(extents.size()) {
  if (rank_ > kMaxRank) throw UserError(fmt::format("a shape of rank {}: at most {} is possible", rank_, kMaxRank));
  std::size_t i = 0;
  std::int64_t elements = 1;
  for (const std::int64_t e : extents) {
    if (e < 0) throw UserError(fmt::format("a shape with extent {}: extents are 0 or more", e));
    if (__builtin_mul_overflow(elements, std::max<std::int64_t>(e, 1), &elements) || elements > kMaxElements)
      throw UserError(fmt::format("a shape [{}]: more than {} elements", fmt::join(extents, ", "), kMaxElements));
    extents_[i++] = e;
  }
}

std::size_t Shape::elements() const noexcept {
  std::size_t n = 1;
  for (std::size_t i = 0; i < rank_; ++i) n *= static_cast<std::size_t>(extents_[i]);
  return n;
}

std::size_t Shape::rows() const noexcept {
  std::size_t n = 1;
  for (std::size_t i = 0; i + 1 < rank_; ++i) n *= static_cast<std::size_t>(extents_[i]);
  return n;
}

std::string Shape::to_string() const {
  return fmt::format("[{}]", fmt::join(extents_.begin(), extents_.begin() + static_cast<std::ptrdiff_t>(rank_), ", "));
}

std::string TensorSpec::to_string() const { return fmt::format("{}{}", name_of(dtype), shape.to_string()); }

}  // namespace gradflow
