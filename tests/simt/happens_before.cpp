// Not instrumented itself: what the engine does is no part of a kernel.
#include "simt/happens_before.h"

#ifdef SIMT_RACES

#include <sanitizer/tsan_interface.h>

#include <algorithm>
#include <bit>

namespace simt {
namespace {

// Nobody's past is passed on by the switch itself.
void become(void* fiber) { __tsan_switch_to_fiber(fiber, __tsan_switch_to_fiber_no_sync); }

}  // namespace

void HappensBefore::to_engine() { become(engine_); }
void HappensBefore::to_thread(unsigned thread) { become(now().threads[thread].fiber); }

// A sanitizer thread costs a millisecond and a megabyte, so they are kept for later launches: those come
// after this one anyway.
void HappensBefore::grow(Slot& slot, unsigned threads) {
  while (slot.threads.size() < threads) {
    slot.threads.emplace_back().fiber = __tsan_create_fiber(0);
  }
  if (slot.publisher == nullptr) slot.publisher = __tsan_create_fiber(0);
}

void HappensBefore::begin_launch(std::uint64_t blocks, unsigned threads) {
  engine_ = __tsan_get_current_fiber();
  for (unsigned s = 0; s < std::min<std::uint64_t>(blocks, kBlockSlots); ++s) {
    Slot& slot = slots_[(slot_ + 1 + s) % kBlockSlots];
    slot.used = false;
    grow(slot, threads);
  }
  __tsan_release(&launch_);
}

void HappensBefore::end_launch() {
  for (Slot& slot : slots_) {
    if (slot.used) __tsan_acquire(&slot.end);
    slot.used = false;
  }
}

void HappensBefore::begin_block(unsigned threads) {
  slot_ = (slot_ + 1) % kBlockSlots;
  Slot& slot = now();
  for (unsigned i = 0; i < threads; ++i) {
    become(slot.threads[i].fiber);
    __tsan_acquire(&launch_);
    if (slot.used) __tsan_acquire(&slot.end);
    slot.threads[i].fenced = false;
  }
  slot.used = true;
  become(engine_);
}

void HappensBefore::end_thread(unsigned thread) {
  become(now().threads[thread].fiber);
  __tsan_release(&now().end);
  become(engine_);
}

void HappensBefore::block_barrier(unsigned threads) {
  Slot& slot = now();
  for (unsigned i = 0; i < threads; ++i) {
    become(slot.threads[i].fiber);
    __tsan_release(&slot.barrier);
    publish_fence(slot.threads[i]);
  }
  for (unsigned i = 0; i < threads; ++i) {
    become(slot.threads[i].fiber);
    __tsan_acquire(&slot.barrier);
  }
  become(engine_);
}

void HappensBefore::warp_barrier(unsigned first_thread, unsigned mask) {
  Slot& slot = now();
  char& group = slot.groups[first_thread + static_cast<unsigned>(std::countr_zero(mask))];
  for (const bool arriving : {true, false}) {
    for (unsigned l = 0; l < 32; ++l) {
      if ((mask >> l & 1u) == 0) continue;
      ThreadState& thread = slot.threads[first_thread + l];
      become(thread.fiber);
      if (arriving) {
        __tsan_release(&group);
        publish_fence(thread);
      } else {
        __tsan_acquire(&group);
      }
    }
  }
  become(engine_);
}

void HappensBefore::publish_fence(ThreadState& thread) {
  if (!thread.fenced) return;
  thread.fenced = false;
  become(now().publisher);
  __tsan_acquire(&thread.fence);
}

void HappensBefore::fence(unsigned thread) {
  ThreadState& t = now().threads[thread];
  become(t.fiber);
  __tsan_acquire(&now().read);
  __tsan_release(&t.fence);
  t.fenced = true;
  become(engine_);
}

void HappensBefore::atomic(unsigned thread, void* address) {
  publish_fence(now().threads[thread]);
  become(now().publisher);
  __tsan_acquire(address);
  __tsan_release(address);
  __tsan_release(&now().read);
  become(engine_);
}

void HappensBefore::forget_block() {
  for (ThreadState& t : now().threads) __tsan_destroy_fiber(t.fiber);
  now().threads.clear();
}

}  // namespace simt

#endif
