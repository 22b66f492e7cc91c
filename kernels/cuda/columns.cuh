// Sums over the rows of a matrix, one for each column, in f64 and in a fixed order; and walks over a
// matrix where each thread keeps its column.
//
// Blocks are threads_x (columns) by threads_y (rows), see matrix_grid(). A block adds the rows
// blockIdx.y * threads_y + threadIdx.y, then every gridDim.y * threads_y-th; the block of a column tile
// that finishes last adds the blocks' partial sums by index.
#pragma once

#include <cstddef>

#include "kernels/cuda/reduce.cuh"
#include "kernels/cuda/simt.h"
#include "kernels/cuda/storage.cuh"

namespace gradflow::kernels::cuda {

inline constexpr unsigned kReduceTileColumns = 32;  // one row of a tile is one 128-byte line

// One f64 sum for each column of a block is what kReductionBytesPerBlock holds.
inline constexpr unsigned kTileColumns = kReductionBytesPerBlock / sizeof(double);

// Packs of columns where `vector`, else single ones; kTileColumns columns to a block either way.
template <class S, unsigned kPack = kPackOf<S>>
BlockGrid tile_grid(const Queue& queue, std::size_t rows, std::size_t columns, bool vector) {
  return vector ? matrix_grid(queue, rows, columns / kPack, kTileColumns / kPack, 4)
                : matrix_grid(queue, rows, columns, kTileColumns, 16);
}

// K sums of one column.
template <int K>
struct ColumnSums {
  double of[K];
};

// Adds `mine` over threadIdx.y; every thread with threadIdx.y == 0 then holds its column's sums.
template <int K>
__device__ inline ColumnSums<K> add_over_rows_of_block(ColumnSums<K> mine) {
  SIMT_SHARED(double, sums, [K][kBlockThreads]);
  const unsigned slot = threadIdx.y * blockDim.x + threadIdx.x;
  __syncthreads();  // a previous call may still be reading
#pragma unroll
  for (int k = 0; k < K; ++k) sums[k][slot] = mine.of[k];
  __syncthreads();
  for (unsigned half = blockDim.y / 2; half > 0; half /= 2) {
    if (threadIdx.y < half) {
#pragma unroll
      for (int k = 0; k < K; ++k) sums[k][slot] += sums[k][slot + half * blockDim.x];
    }
    __syncthreads();
  }
#pragma unroll
  for (int k = 0; k < K; ++k) mine.of[k] = sums[k][threadIdx.x];
  return mine;
}

// Adds the sums of all blocks of a column tile; finish(sums) is called for each column inside, by one thread.
// Every thread of the grid must call this. K * 8 * blockDim.x <= kReductionBytesPerBlock.
template <int K, class Finish>
__device__ inline void add_over_grid(ColumnSums<K> sums, bool inside, const ReductionScratch& scratch,
                                     const Finish& finish) {
  sums = add_over_rows_of_block(sums);
  if (gridDim.y > 1) {
    // partials[tile][block in y][k][column in tile]
    double* tile = static_cast<double*>(scratch.partials) +
                   std::size_t{blockIdx.x} * gridDim.y * K * blockDim.x + threadIdx.x;
    if (threadIdx.y == 0) {
#pragma unroll
      for (int k = 0; k < K; ++k) tile[(std::size_t{blockIdx.y} * K + k) * blockDim.x] = sums.of[k];
    }
    if (!last_block(scratch.tickets + blockIdx.x, gridDim.y)) return;
    sums = {};
    for (unsigned b = threadIdx.y; b < gridDim.y; b += blockDim.y) {
#pragma unroll
      for (int k = 0; k < K; ++k) sums.of[k] += tile[(std::size_t{b} * K + k) * blockDim.x];
    }
    sums = add_over_rows_of_block(sums);
  }
  if (inside && threadIdx.y == 0) finish(sums);
}

// term(row, column, sums) adds one element's contribution; finish(column, sums) is called once for each
// column, by one thread. Every thread of the grid must call this. A block is at most kTile columns wide and
// K * 8 * kTile <= kReductionBytesPerBlock. A "column" may be a pack of several, with K sums in all.
template <int K, unsigned kTile = kReduceTileColumns, class Term, class Finish>
__device__ inline void reduce_columns(std::size_t rows, std::size_t columns, const ReductionScratch& scratch,
                                      const Term& term, const Finish& finish) {
  static_assert(K * sizeof(double) * kTile <= kReductionBytesPerBlock);
  const std::size_t column = std::size_t{blockIdx.x} * blockDim.x + threadIdx.x;
  const bool inside = column < columns;
  ColumnSums<K> sums{};
  if (inside) {
    const std::size_t step = std::size_t{gridDim.y} * blockDim.y;
    std::size_t row = std::size_t{blockIdx.y} * blockDim.y + threadIdx.y;
    [[maybe_unused]] constexpr int kUnroll = K >= 8 ? 2 : 4;  // loads in flight, as registers allow
#pragma unroll kUnroll
    for (; row < rows; row += step) term(row, column, sums);
  }
  add_over_grid(sums, inside, scratch, [&](const ColumnSums<K>& total) { finish(column, total); });
}

// Calls body.load(row) for several rows of this thread, then body.store(row, loaded) for them.
template <int kUnroll, class Body>
__device__ inline void walk_rows(std::size_t rows, Body& body) {
  const std::size_t step = std::size_t{gridDim.y} * blockDim.y;
  std::size_t row = std::size_t{blockIdx.y} * blockDim.y + threadIdx.y;
  using Loaded = decltype(body.load(0));
  for (; row + (kUnroll - 1) * step < rows; row += kUnroll * step) {
    Loaded in[kUnroll];
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) in[u] = body.load(row + u * step);
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) body.store(row + u * step, in[u]);
  }
  for (; row < rows; row += step) body.store(row, body.load(row));
}

// Calls at(row, column) for every element; prepare(column) once before the rows of a column.
template <int kUnroll = 4, class Prepare, class At>
__device__ inline void walk_columns(std::size_t rows, std::size_t columns, const Prepare& prepare,
                                    const At& at) {
  const std::size_t column = std::size_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (column >= columns) return;
  const auto of_column = prepare(column);
  const std::size_t step = std::size_t{gridDim.y} * blockDim.y;
#pragma unroll kUnroll
  for (std::size_t row = std::size_t{blockIdx.y} * blockDim.y + threadIdx.y; row < rows; row += step) {
    at(row, column, of_column);
  }
}

}  // namespace gradflow::kernels::cuda
