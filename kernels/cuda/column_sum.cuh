// Sums over rows (bias gradients), rows made of one vector, and the columns that were ever alive.
#pragma once

#include <cstdint>

#include "kernels/cuda/columns.cuh"
#include "kernels/cuda/storage.cuh"

namespace gradflow::kernels::cuda {

// y[c] (=|+=) sum over r of x[r, c]. Moves 4 bytes an element, 2 in bf16.
template <class S>
__device__ inline void column_sum(const S* x, float* y, std::size_t rows, std::size_t columns, bool accumulate,
                                  const ReductionScratch& scratch) {
  reduce_columns<1>(
      rows, columns, scratch,
      [=](std::size_t row, std::size_t column, ColumnSums<1>& sums) {
        sums.of[0] += widen(x[row * columns + column]);
      },
      [=](std::size_t column, const ColumnSums<1>& sums) {
        const double old = accumulate ? static_cast<double>(y[column]) : 0.0;
        y[column] = static_cast<float>(old + sums.of[0]);
      });
}

// alive[c] |= any y[r, c] > 0 or NaN. Threads that find one write the same byte value, in any order.
template <class S>
__device__ inline void mark_alive(const S* y, std::uint8_t* alive, std::size_t rows, std::size_t columns) {
  const std::size_t column = std::size_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (column >= columns) return;
  const std::size_t step = std::size_t{gridDim.y} * blockDim.y;
  bool found = false;
#pragma unroll 4
  for (std::size_t row = std::size_t{blockIdx.y} * blockDim.y + threadIdx.y; row < rows; row += step) {
    found |= !(widen(y[row * columns + column]) <= 0.0f);  // no short cut: keeps loads in flight
  }
  if (found) store_relaxed(alive + column, std::uint8_t{1});
}

// broadcast_rows: y[r, c] = bias[c]. Moves 4 bytes an element, 2 in bf16.
#define GRADFLOW_COLUMN_KERNELS(S, s)                                                                       \
  extern "C" __global__ void __launch_bounds__(kBlockThreads)                                               \
      column_sum_##s(const S* x, float* y, std::size_t rows, std::size_t columns, bool accumulate,          \
                     ReductionScratch scratch) {                                                            \
    column_sum(x, y, rows, columns, accumulate, scratch);                                                   \
  }                                                                                                         \
  extern "C" __global__ void __launch_bounds__(kBlockThreads)                                               \
      broadcast_rows_##s(const float* bias, S* y, std::size_t rows, std::size_t columns) {                  \
    walk_columns(                                                                                           \
        rows, columns, [=](std::size_t column) { return narrow<S>(bias[column]); },                         \
        [=](std::size_t row, std::size_t column, S value) { y[row * columns + column] = value; });          \
  }                                                                                                         \
  extern "C" __global__ void __launch_bounds__(kBlockThreads)                                               \
      mark_alive_##s(const S* y, std::uint8_t* alive, std::size_t rows, std::size_t columns) {              \
    mark_alive(y, alive, rows, columns);                                                                    \
  }

GRADFLOW_COLUMN_KERNELS(float, f32)
GRADFLOW_COLUMN_KERNELS(Bf16, bf16)

#undef GRADFLOW_COLUMN_KERNELS

}  // namespace gradflow::kernels::cuda
