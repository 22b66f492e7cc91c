// Sums over rows (bias gradients), rows made of one vector, and the columns that were ever alive.
#pragma once

#include <cstdint>

#include "kernels/cuda/columns.cuh"

namespace gradflow::kernels::cuda {

// y[c] (=|+=) sum over r of x[r, c]. Moves 4 bytes an element.
extern "C" __global__ void __launch_bounds__(kBlockThreads)
    column_sum_f32(const float* x, float* y, std::size_t rows, std::size_t columns, bool accumulate,
                   ReductionScratch scratch) {
  reduce_columns<1>(
      rows, columns, scratch,
      [=](std::size_t row, std::size_t column, ColumnSums<1>& sums) {
        sums.of[0] += x[row * columns + column];
      },
      [=](std::size_t column, const ColumnSums<1>& sums) {
        const double old = accumulate ? static_cast<double>(y[column]) : 0.0;
        y[column] = static_cast<float>(old + sums.of[0]);
      });
}

// y[r, c] = bias[c]. Moves 4 bytes an element.
extern "C" __global__ void __launch_bounds__(kBlockThreads)
    broadcast_rows_f32(const float* bias, float* y, std::size_t rows, std::size_t columns) {
  walk_columns(
      rows, columns, [=](std::size_t column) { return bias[column]; },
      [=](std::size_t row, std::size_t column, float value) { y[row * columns + column] = value; });
}

// alive[c] |= any y[r, c] > 0 or NaN. Threads that find one write the same byte value, in any order.
extern "C" __global__ void __launch_bounds__(kBlockThreads)
    mark_alive_f32(const float* y, std::uint8_t* alive, std::size_t rows, std::size_t columns) {
  const std::size_t column = std::size_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (column >= columns) return;
  const std::size_t step = std::size_t{gridDim.y} * blockDim.y;
  bool found = false;
#pragma unroll 4
  for (std::size_t row = std::size_t{blockIdx.y} * blockDim.y + threadIdx.y; row < rows; row += step) {
    found |= !(y[row * columns + column] <= 0.0f);  // no short cut: keeps loads in flight
  }
  if (found) store_relaxed(alive + column, std::uint8_t{1});
}

}  // namespace gradflow::kernels::cuda
