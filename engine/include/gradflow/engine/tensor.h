// Shapes and tensor views.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <string>

#include "gradflow/kernels/dtype.h"

namespace gradflow {

// Up to six extents, slowest first; images are NHWC. A scalar has rank 0 and one element.
class Shape {
 public:
  static constexpr std::size_t kMaxRank = 6;
  static constexpr std::int64_t kMaxElements = std::int64_t{1} << 56;  // sums of many tensors' bytes still fit 64 bits

  Shape() = default;
  Shape(std::initializer_list<std::int64_t> extents);  // UserError: rank > 6, an extent < 0, too many elements

  std::size_t rank() const noexcept { return rank_; }
  std::int64_t operator[](std::size_t i) const noexcept { return extents_[i]; }
  std::int64_t back() const noexcept { return rank_ ? extents_[rank_ - 1] : 1; }
  std::size_t elements() const noexcept;
  // Product of all extents but the last: rows of the matrix that a channels-last tensor is.
  std::size_t rows() const noexcept;
  std::string to_string() const;  // "[128, 256]"
  bool operator==(const Shape&) const = default;

 private:
  std::array<std::int64_t, kMaxRank> extents_{};
  std::size_t rank_ = 0;
};

struct TensorSpec {
  Shape shape;
  DType dtype = DType::f32;
  std::size_t elements() const noexcept { return shape.elements(); }
  std::size_t bytes() const noexcept { return elements() * size_of(dtype); }
  std::string to_string() const;  // "f32[128, 256]"
  bool operator==(const TensorSpec&) const = default;
};

// A non-owning, contiguous, row-major view in the memory of the backend of whoever handed it out.
// data is null for a tensor that does not exist (a gradient nobody asked for).
struct Tensor {
  void* data = nullptr;
  TensorSpec spec;

  template <class T> T* as() const noexcept { return static_cast<T*>(data); }
  explicit operator bool() const noexcept { return data != nullptr; }
  std::size_t elements() const noexcept { return spec.elements(); }
  std::size_t bytes() const noexcept { return spec.bytes(); }
  DType dtype() const noexcept { return spec.dtype; }
  const Shape& shape() const noexcept { return spec.shape; }
};

}  // namespace gradflow
