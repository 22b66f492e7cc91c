// Sums over rows (bias gradients), rows made of one vector, and the columns that were ever alive. A thread keeps a
// pack of columns where rows are a whole number of packs and aligned, else a single one, and has four rows in flight.
#pragma once

#include <cstdint>

#include "kernels/cuda/columns.cuh"
#include "kernels/cuda/storage.cuh"

namespace gradflow::kernels::cuda {

// W neighboring columns of one thread.
template <class S, int W>
struct PackOfColumns {
  const S* x;  // of the first of them, row 0
  std::size_t columns;

  __device__ Pack<W> load(std::size_t row) const { return load_pack<W>(x + row * columns); }
};

template <class S, int W>
struct ColumnSumBody : PackOfColumns<S, W> {
  ColumnSums<W> sums;

  __device__ void store(std::size_t, const Pack<W>& in) {
#pragma unroll
    for (int k = 0; k < W; ++k) sums.of[k] += in.v[k];
  }
};

// y[c] (=|+=) sum over r of x[r, c]. Moves 4 bytes an element, 2 in bf16.
template <class S, int W>
__device__ inline void column_sum(const S* x, float* y, std::size_t rows, std::size_t columns, bool accumulate,
                                  const ReductionScratch& scratch) {
  const std::size_t column = W * (std::size_t{blockIdx.x} * blockDim.x + threadIdx.x);
  const bool inside = column < columns;
  ColumnSums<W> sums{};
  if (inside) {
    ColumnSumBody<S, W> body{{x + column, columns}, {}};
    walk_rows<4>(rows, body);
    sums = body.sums;
  }
  add_over_grid(sums, inside, scratch, [=](const ColumnSums<W>& total) {
#pragma unroll
    for (int k = 0; k < W; ++k) {
      const double old = accumulate ? static_cast<double>(y[column + k]) : 0.0;
      y[column + k] = static_cast<float>(old + total.of[k]);
    }
  });
}

template <class S, int W>
struct MarkAliveBody : PackOfColumns<S, W> {
  unsigned found;  // a bit for each column

  __device__ void store(std::size_t, const Pack<W>& in) {
#pragma unroll
    for (int k = 0; k < W; ++k) found |= static_cast<unsigned>(!(in.v[k] <= 0.0f)) << k;
  }
};

// alive[c] |= any y[r, c] > 0 or NaN. Threads that find one write the same byte value, in any order.
template <class S, int W>
__device__ inline void mark_alive(const S* y, std::uint8_t* alive, std::size_t rows, std::size_t columns) {
  const std::size_t column = W * (std::size_t{blockIdx.x} * blockDim.x + threadIdx.x);
  if (column >= columns) return;
  MarkAliveBody<S, W> body{{y + column, columns}, 0};
  walk_rows<4>(rows, body);
#pragma unroll
  for (int k = 0; k < W; ++k) {
    if (body.found >> k & 1u) store_relaxed(alive + column + k, std::uint8_t{1});
  }
}

template <class S, int W>
struct BroadcastBody {
  S* y;  // of the thread's first column, row 0
  std::size_t columns;
  Pack<W> bias;

  __device__ int load(std::size_t) const { return 0; }
  __device__ void store(std::size_t row, int) const { store_pack(y + row * columns, bias); }
};

// y[r, c] = bias[c]. Moves 4 bytes an element, 2 in bf16.
template <class S, int W>
__device__ inline void broadcast_rows(const float* bias, S* y, std::size_t rows, std::size_t columns) {
  const std::size_t column = W * (std::size_t{blockIdx.x} * blockDim.x + threadIdx.x);
  if (column >= columns) return;
  BroadcastBody<S, W> body{y + column, columns, load_pack<W>(bias + column)};
  walk_rows<4>(rows, body);
}

// `vector`: rows are a whole number of packs and every matrix starts at a multiple of 16 bytes; so does the bias.
#define GRADFLOW_COLUMN_KERNELS(S, s)                                                                              \
  extern "C" __global__ void __launch_bounds__(kBlockThreads)                                                      \
      column_sum_##s(const S* x, float* y, std::size_t rows, std::size_t columns, bool vector, bool accumulate,    \
                     ReductionScratch scratch) {                                                                   \
    if (vector) {                                                                                                  \
      column_sum<S, kPackOf<S>>(x, y, rows, columns, accumulate, scratch);                                         \
    } else {                                                                                                       \
      column_sum<S, 1>(x, y, rows, columns, accumulate, scratch);                                                  \
    }                                                                                                              \
  }                                                                                                                \
  extern "C" __global__ void __launch_bounds__(kBlockThreads)                                                      \
      broadcast_rows_##s(const float* bias, S* y, std::size_t rows, std::size_t columns, bool vector) {            \
    if (vector) {                                                                                                  \
      broadcast_rows<S, kPackOf<S>>(bias, y, rows, columns);                                                       \
    } else {                                                                                                       \
      broadcast_rows<S, 1>(bias, y, rows, columns);                                                                \
    }                                                                                                              \
  }                                                                                                                \
  extern "C" __global__ void __launch_bounds__(kBlockThreads)                                                      \
      mark_alive_##s(const S* y, std::uint8_t* alive, std::size_t rows, std::size_t columns, bool vector) {        \
    if (vector) {                                                                                                  \
      mark_alive<S, kPackOf<S>>(y, alive, rows, columns);                                                          \
    } else {                                                                                                       \
      mark_alive<S, 1>(y, alive, rows, columns);                                                                   \
    }                                                                                                              \
  }

GRADFLOW_COLUMN_KERNELS(float, f32)
GRADFLOW_COLUMN_KERNELS(Bf16, bf16)

#undef GRADFLOW_COLUMN_KERNELS

}  // namespace gradflow::kernels::cuda
