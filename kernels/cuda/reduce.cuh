// Sums over a grid in a fixed order: threads, then lanes, then warps, then blocks by index. No float
// atomics; the only atomic counts finished blocks.
//
// A partial P has `__device__ void merge(const P& other)`, `P from_lane(int offset) const` (the same
// partial of the lane `offset` further up) and value-initializes to "nothing seen".
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/cuda/queue.h"
#include "kernels/cuda/simt.h"

namespace gradflow::kernels::cuda {

inline constexpr unsigned kAllLanes = 0xffffffffu;

// How the threads of a block and the blocks of a grid are numbered: along x alone, or in x and y.
struct AlongX {
  static __device__ unsigned thread() { return threadIdx.x; }
  static __device__ unsigned threads() { return blockDim.x; }
  static __device__ unsigned block() { return blockIdx.x; }
  static __device__ unsigned blocks() { return gridDim.x; }
};
struct InPlane {
  static __device__ unsigned thread() { return threadIdx.y * blockDim.x + threadIdx.x; }
  static __device__ unsigned threads() { return blockDim.x * blockDim.y; }
  static __device__ unsigned block() { return blockIdx.y * gridDim.x + blockIdx.x; }
  static __device__ unsigned blocks() { return gridDim.x * gridDim.y; }
};

// The result is valid in lane 0.
template <class P>
__device__ inline P warp_reduce(P mine) {
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2) mine.merge(mine.from_lane(offset));
  return mine;
}

// The result is valid in thread 0. A block is a whole number of warps, at most 256 threads, numbered as Place says.
// Every thread of the block must call it.
template <class P, class Place = AlongX>
__device__ inline P block_reduce(P mine) {
  SIMT_SHARED(P, warps, [8]);
  const unsigned warp = Place::thread() / 32;
  const unsigned lane = Place::thread() % 32;
  mine = warp_reduce(mine);
  __syncthreads();  // a previous call may still be reading
  if (lane == 0) warps[warp] = mine;
  __syncthreads();
  if (warp == 0) {
    mine = lane < Place::threads() / 32 ? warps[lane] : P{};
    mine = warp_reduce(mine);
  }
  return mine;
}

// True in every thread of the block that calls it last among `blocks` blocks sharing `ticket`. What the
// other blocks wrote before their call is then visible. The ticket is zero again for the next launch.
__device__ inline bool last_block(unsigned* ticket, unsigned blocks) {
  SIMT_SHARED(unsigned, is_last, [1]);
  __threadfence();
  __syncthreads();
  if (threadIdx.x == 0 && threadIdx.y == 0) {
    is_last[0] = atomicAdd(ticket, 1u) == blocks - 1;
    if (is_last[0]) atomicExch(ticket, 0u);  // atomic as well: the other blocks' additions are not fenced off
  }
  __syncthreads();
  const bool last = is_last[0] != 0;
  if (last) __threadfence();
  return last;
}

// Reduces `mine` over the whole grid; true in exactly one thread, which then holds the total in `mine`.
// sizeof(P) <= kReductionBytesPerBlock.
template <class P, class Place = AlongX>
__device__ inline bool grid_reduce(P& mine, const ReductionScratch& scratch) {
  static_assert(sizeof(P) <= kReductionBytesPerBlock);
  mine = block_reduce<P, Place>(mine);
  if (Place::blocks() > 1) {
    P* partials = static_cast<P*>(scratch.partials);
    if (Place::thread() == 0) partials[Place::block()] = mine;
    if (!last_block(scratch.tickets, Place::blocks())) return false;
    mine = P{};
    for (unsigned b = Place::thread(); b < Place::blocks(); b += Place::threads()) mine.merge(partials[b]);
    mine = block_reduce<P, Place>(mine);
  }
  return Place::thread() == 0;
}

}  // namespace gradflow::kernels::cuda
