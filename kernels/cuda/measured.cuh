// What a pass measures of the arrays it reads or writes anyway: statistics in registers, exponents in shared memory.
//
//   Measured<2> measured{{x_sinks, y_sinks}};   // Measured<0>: nothing, and no code for it
//   measured.begin();
//   measured.add(0, pack);                      // as packs go by; of an output: as it is stored
//   measured.finish(n, scratch);                // every thread of the grid
//
// A pass that also sums columns has a grid in two dimensions (Place is InPlane), and two reductions at a time: the
// second one's room is second_scratch().
#pragma once

#include "kernels/cuda/exponents.cuh"
#include "kernels/cuda/output_op.cuh"
#include "kernels/cuda/stats.cuh"
#include "kernels/cuda/stream.cuh"

namespace gradflow::kernels::cuda {

// Packs in flight where a pointwise pass measures two arrays, as registers allow: packs of eight numbers one at a time.
template <class S>
inline constexpr int kMeasuredInFlight = kPackOf<S> > 4 ? 1 : 2;

// Where the measurements of one array are added; null where nobody asks.
struct Sinks {
  Stats* stats;
  u64* exponents;  // kExponentBins
};

inline Sinks sinks(Stats* stats, std::uint64_t* exponents) {
  static_assert(sizeof(u64) == sizeof(std::uint64_t));
  return {stats, reinterpret_cast<u64*>(exponents)};
}
inline bool any(const Sinks& sinks) { return sinks.stats != nullptr || sinks.exponents != nullptr; }

// No reduction over columns has a ticket so far behind: where its tiles have more than one block each, they are half
// as many as max_blocks() at most. Any number of blocks; takes the queue's workspace, `more` bytes of which lie behind.
struct SecondScratch {
  ReductionScratch scratch;
  void* more;
};
inline SecondScratch second_scratch(Queue& queue, const BlockGrid& grid, std::size_t more) {
  const std::size_t bytes = std::size_t{grid.x} * grid.y * kReductionBytesPerBlock;
  void* partials = queue.workspace(bytes + more);
  return {{queue.scratch.tickets + (queue.max_blocks() - 1), partials}, static_cast<unsigned char*>(partials) + bytes};
}
inline ReductionScratch second_scratch(Queue& queue, const BlockGrid& grid) {
  return second_scratch(queue, grid, 0).scratch;
}

template <int K, class Place = AlongX>
struct Measured {
  Sinks to[K];
  StatsOfFloats seen[K];
  BlockHistograms<K, Place> counts;

  __device__ void begin() const {
    bool asked = false;
#pragma unroll
    for (int k = 0; k < K; ++k) asked |= to[k].exponents != nullptr;
    if (asked) counts.clear();
  }

  // `op` decides what counts as saturated.
  template <class Op = ops::Identity, int W>
  __device__ void add(int which, const Pack<W>& pack, const Op& op = {}) {
    seen[which].add(pack);
    with_op(op, [&]<class One>(const One&) { seen[which].template add_saturated<One>(pack); });
    if (to[which].exponents != nullptr) counts.add(which, pack);
  }

  __device__ void finish(std::size_t n, const ReductionScratch& scratch) const {
    StatsSet<K> total;
#pragma unroll
    for (int k = 0; k < K; ++k) {
      counts.flush(k, to[k].exponents);
      total.of[k] = seen[k].partial();
    }
    if (!grid_reduce<StatsSet<K>, Place>(total, scratch)) return;
#pragma unroll
    for (int k = 0; k < K; ++k) total.of[k].add_to(to[k].stats, n);
  }
};

template <class Place>
struct Measured<0, Place> {
  __device__ void begin() const {}
  template <class Op = ops::Identity, int W>
  __device__ void add(int, const Pack<W>&, const Op& = {}) const {}
  __device__ void finish(std::size_t, const ReductionScratch&) const {}
};

}  // namespace gradflow::kernels::cuda
