// What ThreadSanitizer is told of a run (build with SIMT_RACES): which CUDA thread runs, and what comes
// before what. It then reports every pair of accesses that nothing orders, with both source lines, whatever
// the values are. Modeled, and nothing else orders two threads:
//
//   a launch              after all that the host did before; the host goes on after all its threads
//   __syncthreads         all threads of the block
//   __syncwarp            the lanes of its mask. Shuffles order no memory, and lanes run independently
//   __threadfence         with atomics on both sides: what a thread did before its fence comes before a fence
//                         of another thread that follows an atomic, if that atomic met a later one of the
//                         first thread, or of a thread that a barrier put after its fence
//
// Blocks run one after another, yet nothing orders them. A block takes one of kBlockSlots sets of sanitizer
// threads and shared memory, in turn: two blocks whose places in the schedule differ by a multiple of
// kBlockSlots count as ordered. Seeds change the places.
#pragma once

#include <cstdint>

#include "kernels/cuda/simt.h"

#ifdef SIMT_RACES
#include <deque>
#endif

namespace simt {

#ifdef SIMT_RACES

class HappensBefore {
 public:
  void begin_launch(std::uint64_t blocks, unsigned threads);
  void end_launch();
  void begin_block(unsigned threads);
  void end_thread(unsigned thread);

  // Every entry from a kernel into the engine, and every way back, so that the engine's own accesses belong
  // to no CUDA thread.
  void to_engine();
  void to_thread(unsigned thread);

  // All of the block, or the lanes of `mask` in the warp whose first thread is given, are there.
  void block_barrier(unsigned threads);
  void warp_barrier(unsigned first_thread, unsigned mask);
  void fence(unsigned thread);
  void atomic(unsigned thread, void* address);

  void forget_block();  // its threads will never end
  unsigned slot() const { return slot_; }

 private:
  struct ThreadState {
    void* fiber = nullptr;
    bool fenced = false;  // since the last barrier
    char fence = 0;       // its address stands for what the thread's fences cover
  };
  struct Slot {
    std::deque<ThreadState> threads;  // addresses stay
    void* publisher = nullptr;        // what the block's atomics publish and have read, as a thread
    bool used = false;                // in this launch
    char end = 0, barrier = 0, read = 0;
    char groups[1024] = {};  // of lanes in a __syncwarp, by its lowest thread: masks without it are others
  };

  Slot& now() { return slots_[slot_]; }
  void grow(Slot& slot, unsigned threads);
  void publish_fence(ThreadState& thread);

  Slot slots_[kBlockSlots];
  unsigned slot_ = kBlockSlots - 1;
  void* engine_ = nullptr;
  char launch_ = 0;
};

#else

class HappensBefore {
 public:
  void begin_launch(std::uint64_t, unsigned) {}
  void end_launch() {}
  void begin_block(unsigned) {}
  void end_thread(unsigned) {}
  void to_engine() {}
  void to_thread(unsigned) {}
  void block_barrier(unsigned) {}
  void warp_barrier(unsigned, unsigned) {}
  void fence(unsigned) {}
  void atomic(unsigned, void*) {}
  void forget_block() {}
  unsigned slot() const { return 0; }
};

#endif

}  // namespace simt
