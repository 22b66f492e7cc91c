#include "orthogonal.h"

#include <algorithm>
#include <cmath>

namespace gradflow {

void orthonormalize(std::vector<float>& w, std::size_t rows, std::size_t columns, double gain) {
  const bool by_row = rows <= columns;
  const std::size_t count = by_row ? rows : columns, length = by_row ? columns : rows;
  // Vector i as a contiguous row of v.
  std::vector<double> v(count * length);
  const auto source = [&](std::size_t i, std::size_t j) -> float& { return by_row ? w[i * columns + j] : w[j * columns + i]; };
  for (std::size_t i = 0; i < count; ++i)
    for (std::size_t j = 0; j < length; ++j) v[i * length + j] = source(i, j);

  for (std::size_t i = 0; i < count; ++i) {
    double* a = &v[i * length];
    for (int pass = 0; pass < 2; ++pass) {  // the second pass removes what rounding left in the first
      for (std::size_t k = 0; k < i; ++k) {
        const double* b = &v[k * length];
        double dot = 0;
        for (std::size_t j = 0; j < length; ++j) dot += a[j] * b[j];
        for (std::size_t j = 0; j < length; ++j) a[j] -= dot * b[j];
      }
      double square = 0;
      for (std::size_t j = 0; j < length; ++j) square += a[j] * a[j];
      const double inverse = 1 / std::sqrt(square);
      for (std::size_t j = 0; j < length; ++j) a[j] *= inverse;
    }
  }
  for (std::size_t i = 0; i < count; ++i)
    for (std::size_t j = 0; j < length; ++j) source(i, j) = static_cast<float>(gain * v[i * length + j]);
}

}  // namespace gradflow
