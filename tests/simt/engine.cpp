// The engine behind kernels/cuda/simt_host.h: threads as fibers, and a scheduler that decides who goes next.
//
// A fiber runs new threads of the block one after another until one of them has to wait; that thread keeps
// the fiber and the scheduler takes another. So a kernel without barriers needs one fiber for a block.
// With SIMT_RACES each thread has a fiber of its own: ThreadSanitizer must not see two threads on one stack.
#include <sys/mman.h>

#include <algorithm>
#include <boost/context/detail/fcontext.hpp>
#include <cstdio>
#include <memory>
#include <new>
#include <numeric>
#include <stdexcept>
#include <string>
#include <vector>

#include "kernels/cuda/simt.h"
#include "simt/happens_before.h"

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/common_interface_defs.h>
#endif

namespace simt {
namespace {

namespace context = boost::context::detail;

constexpr std::size_t kStackBytes = std::size_t{256} << 10;
constexpr std::size_t kGuardBytes = 4096;
constexpr unsigned kWarp = 32;
#ifdef SIMT_RACES
constexpr bool kRaces = true;
#else
constexpr bool kRaces = false;
#endif

struct Stack {
  void* low = nullptr;
  std::size_t bytes = 0;
};

// AddressSanitizer must be told of every change of stack.
void announce_switch([[maybe_unused]] void** keep, [[maybe_unused]] const Stack& to) {
#ifdef __SANITIZE_ADDRESS__
  __sanitizer_start_switch_fiber(keep, to.low, to.bytes);
#endif
}
void switched([[maybe_unused]] void* kept, [[maybe_unused]] Stack* from = nullptr) {
#ifdef __SANITIZE_ADDRESS__
  const void* low = nullptr;
  std::size_t bytes = 0;
  __sanitizer_finish_switch_fiber(kept, &low, &bytes);
  if (from != nullptr) *from = {const_cast<void*>(low), bytes};
#endif
}

class Fiber {
 public:
  explicit Fiber(void (*entry)(context::transfer_t)) {
    mapping_ = mmap(nullptr, kStackBytes + kGuardBytes, PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (mapping_ == MAP_FAILED) throw std::bad_alloc();
    mprotect(mapping_, kGuardBytes, PROT_NONE);
    stack = {static_cast<char*>(mapping_) + kGuardBytes, kStackBytes};
    resume_at = context::make_fcontext(static_cast<char*>(stack.low) + kStackBytes, kStackBytes, entry);
  }
  ~Fiber() { munmap(mapping_, kStackBytes + kGuardBytes); }
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;

  Stack stack;
  context::fcontext_t resume_at = nullptr;
  void* sanitizer_state = nullptr;
  unsigned thread = 0;  // the thread it runs or holds

 private:
  void* mapping_ = nullptr;
};

enum class State : std::uint8_t { unstarted, runnable, at_block_barrier, at_collective, done };

struct Thread {
  State state = State::unstarted;
  Fiber* fiber = nullptr;
  Location where;
  Collective kind = Collective::sync;
  unsigned mask = 0;
  unsigned source = 0;
  std::uint64_t passed = 0;
  std::uint64_t received = 0;
};

class Engine {
 public:
  void seed(std::uint64_t value) { seed_ = value; }

  void run(const char* kernel, const dim3& grid, const dim3& block, const std::function<void()>& body,
           std::size_t shared_bytes) {
    check_launch(kernel, grid, block, shared_bytes);
    kernel_ = kernel;
    body_ = &body;
    gridDim = grid;
    blockDim = block;
    random_ = seed_ * 0x9e3779b97f4a7c15ull + 1;
    std::vector<unsigned> blocks(std::size_t{grid.x} * grid.y * grid.z);
    std::iota(blocks.begin(), blocks.end(), 0u);
    if (seed_ != 0) shuffle_order(blocks);
    const unsigned threads = block.x * block.y * block.z;
    allocate_dynamic(shared_bytes);
    // Mapping a stack counts as writing it, so it is done before any thread is told of the launch.
    for (unsigned s = 0; kRaces && s < kBlockSlots; ++s) own_fiber(s, threads - 1);
    happens_before_.begin_launch(blocks.size(), threads);
    for (const unsigned b : blocks) {
      blockIdx = {b % grid.x, b / grid.x % grid.y, b / grid.x / grid.y};
      happens_before_.begin_block(threads);
      run_block(threads);
    }
    happens_before_.end_launch();
  }

  unsigned lane() const { return current_ % kWarp; }
  unsigned slot() const { return happens_before_.slot(); }

  void fence() {
    happens_before_.fence(current_);
    happens_before_.to_thread(current_);
  }
  void before_atomic(void* address) {
    happens_before_.atomic(current_, address);
    happens_before_.to_thread(current_);
  }

  // The first thread of a block that comes by fills the memory with garbage.
  void enter_shared(void* memory, std::size_t bytes) {
    if (std::find(entered_.begin(), entered_.end(), memory) != entered_.end()) return;
    entered_.push_back(memory);
    // Not memset(): ThreadSanitizer would see an access by the engine.
    auto* byte = static_cast<volatile unsigned char*>(memory);
    for (std::size_t i = 0; i < bytes; ++i) byte[i] = 0xff;
  }

  void* dynamic_shared(const Location& where) {
    if (dynamic_bytes_ == 0) {
      happens_before_.to_engine();
      fail(where, "dynamic shared memory is used, and the launch asks for none");
    }
    void* memory = dynamic_[slot()].get();
    enter_shared(memory, dynamic_bytes_);
    return memory;
  }

  void wait_at_block_barrier(const Location& where) {
    happens_before_.to_engine();
    Thread& t = threads_[current_];
    t.where = where;
    t.state = State::at_block_barrier;
    ++at_barrier_;
    release_barrier();
    give_way();
    happens_before_.to_thread(current_);
  }

  std::uint64_t wait_at_collective(Collective kind, unsigned mask, std::uint64_t value, unsigned source,
                                   const Location& where) {
    happens_before_.to_engine();
    if ((mask >> lane() & 1u) == 0) fail(where, "a lane calls a warp collective whose mask leaves it out");
    Thread& t = threads_[current_];
    t.kind = kind;
    t.mask = mask;
    t.passed = value;
    t.source = source;
    t.where = where;
    t.state = State::at_collective;
    release_collective(current_ / kWarp, mask);
    give_way();
    happens_before_.to_thread(current_);
    return threads_[current_].received;
  }

 private:
  // A device would refuse the launch.
  static void check_launch(const char* kernel, const dim3& grid, const dim3& block, std::size_t shared_bytes) {
    const auto within = [](unsigned n, unsigned most) { return n >= 1 && n <= most; };
    if (!within(block.x, 1024) || !within(block.y, 1024) || !within(block.z, 64) ||
        block.x * block.y * block.z > 1024) {
      throw std::logic_error(std::string(kernel) + ": a block has 1 to 1024 threads, at most 64 of them in z");
    }
    if (!within(grid.x, 0x7fffffff) || !within(grid.y, 65535) || !within(grid.z, 65535)) {
      throw std::logic_error(std::string(kernel) + ": a grid has 1 to 2^31 - 1, 65535 and 65535 blocks in x, y and z");
    }
    if (shared_bytes > 49152) {
      throw std::logic_error(std::string(kernel) + ": a block has at most 48 KiB of shared memory");
    }
  }

  // ---- scheduling ----
  void run_block(unsigned count) {
    threads_.assign(count, Thread{});
    order_.resize(count);
    std::iota(order_.begin(), order_.end(), 0u);
    if (seed_ != 0) shuffle_order(order_);
    next_ = done_ = at_barrier_ = 0;
    runnable_.clear();
    entered_.clear();
    error_[0] = '\0';
    while (done_ < count && error_[0] == '\0') {
      const bool can_start = next_ < count;
      const bool start = can_start && (runnable_.empty() || (seed_ != 0 && (random() & 1) != 0));
      if (start) {
        resume(*idle_fiber());
      } else if (!runnable_.empty()) {
        resume(*threads_[take_runnable()].fiber);
      } else {
        report_deadlock();
      }
    }
    if (error_[0] == '\0') return;
    for (auto& fiber : fibers_) lost_.push_back(std::move(fiber));  // their threads will never end
    fibers_.clear();
    happens_before_.forget_block();
    idle_.clear();
    for (auto& own : own_fibers_) own.clear();
    throw std::logic_error(error_);
  }

  unsigned take_runnable() {
    const std::size_t pick = seed_ != 0 ? random() % runnable_.size() : 0;
    const unsigned thread = runnable_[pick];
    runnable_.erase(runnable_.begin() + static_cast<std::ptrdiff_t>(pick));
    return thread;
  }

  Fiber* idle_fiber() {
    if constexpr (kRaces) return own_fiber(happens_before_.slot(), order_[next_]);
    if (idle_.empty()) {
      fibers_.push_back(std::make_unique<Fiber>(&Engine::fiber_main));
      idle_.push_back(fibers_.back().get());
    }
    Fiber* fiber = idle_.back();
    idle_.pop_back();
    return fiber;
  }

  Fiber* own_fiber(unsigned slot, unsigned thread) {
    std::vector<Fiber*>& own = own_fibers_[slot];
    while (own.size() <= thread) {
      fibers_.push_back(std::make_unique<Fiber>(&Engine::fiber_main));
      own.push_back(fibers_.back().get());
    }
    return own[thread];
  }

  static void fiber_main(context::transfer_t from);

  void run_threads() {
    while (next_ < threads_.size()) {
      become(order_[next_++]);
      threads_[current_].fiber = active_;
      threads_[current_].state = State::runnable;
      happens_before_.to_thread(current_);
      (*body_)();
      happens_before_.end_thread(current_);
      threads_[current_].state = State::done;
      ++done_;
      release_barrier();
      if (kRaces || (seed_ != 0 && !runnable_.empty() && (random() & 1) != 0)) break;
    }
  }

  void become(unsigned thread) {
    current_ = thread;
    threadIdx = {thread % blockDim.x, thread / blockDim.x % blockDim.y, thread / blockDim.x / blockDim.y};
  }

  void resume(Fiber& fiber) {
    active_ = &fiber;
    announce_switch(&scheduler_sanitizer_state_, fiber.stack);
    const context::transfer_t back = context::jump_fcontext(fiber.resume_at, this);
    switched(scheduler_sanitizer_state_);
    fiber.resume_at = back.fctx;
  }

  void give_way() {
    Fiber& fiber = *active_;
    fiber.thread = current_;
    announce_switch(&fiber.sanitizer_state, scheduler_stack_);
    const context::transfer_t back = context::jump_fcontext(scheduler_, nullptr);
    switched(fiber.sanitizer_state);
    scheduler_ = back.fctx;
    become(fiber.thread);
  }

  // ---- waiting ----
  void make_runnable(unsigned thread) {
    threads_[thread].state = State::runnable;
    runnable_.push_back(thread);
  }

  void release_barrier() {
    if (at_barrier_ == 0 || at_barrier_ + done_ < threads_.size()) return;
    const Thread* first = nullptr;
    for (const Thread& t : threads_) {
      if (t.state != State::at_block_barrier) continue;
      if (done_ != 0) fail(t.where, "%u threads have left the block while others wait", done_);
      if (first != nullptr && !same_place(first->where, t.where)) {
        fail(t.where, "threads of a block wait at different barriers, one at line %u", first->where.line());
      }
      first = &t;
    }
    at_barrier_ = 0;
    happens_before_.block_barrier(static_cast<unsigned>(threads_.size()));
    for (unsigned i = 0; i < threads_.size(); ++i) make_runnable(i);
  }

  // Lets the lanes of the caller's mask go on if all of them are there. A lane of it may still wait in another group
  // that leaves the caller out: that group ends first, as masks of divergent branches do. Where it waits for the
  // caller in turn, neither would ever go on.
  void release_collective(unsigned warp, unsigned mask) {
    const unsigned first_thread = warp * kWarp;
    const Thread& caller = threads_[current_];
    bool complete = true;
    for (unsigned l = 0; l < kWarp; ++l) {
      if ((mask >> l & 1u) == 0) continue;
      const unsigned i = first_thread + l;
      if (i >= threads_.size() || threads_[i].state == State::done) {
        fail(caller.where, "a warp collective names lane %u, which has left", l);
      }
      const Thread& t = threads_[i];
      if (t.state == State::at_collective && same_collective(t, caller)) continue;
      if (t.state == State::at_collective && (t.mask >> lane() & 1u) != 0) {
        fail(caller.where, "lanes of a warp meet at different collectives, one at line %u", t.where.line());
      }
      complete = false;
    }
    if (!complete) return;
    if (caller.kind == Collective::sync) happens_before_.warp_barrier(first_thread, mask);
    std::uint64_t votes = 0;
    for (unsigned l = 0; l < kWarp; ++l) {
      if ((mask >> l & 1u) != 0 && threads_[first_thread + l].passed != 0) votes |= std::uint64_t{1} << l;
    }
    for (unsigned l = 0; l < kWarp; ++l) {
      if ((mask >> l & 1u) == 0) continue;
      Thread& t = threads_[first_thread + l];
      if (t.kind == Collective::vote) {
        t.received = votes;
        continue;
      }
      const unsigned source = t.source < kWarp ? t.source : l;
      // The value of a lane outside the mask is undefined; as all ones it shows up as NaN.
      t.received = (mask >> source & 1u) != 0 ? threads_[first_thread + source].passed : ~std::uint64_t{0};
    }
    for (unsigned l = 0; l < kWarp; ++l) {
      if ((mask >> l & 1u) != 0) make_runnable(first_thread + l);
    }
  }

  // Of exactly that size, so that a sanitizer sees the end. Kept for later launches that ask for as much.
  void allocate_dynamic(std::size_t bytes) {
    if (bytes == dynamic_bytes_) return;
    for (auto& memory : dynamic_) memory.reset(bytes == 0 ? nullptr : new unsigned char[bytes]);
    dynamic_bytes_ = bytes;
  }

  static bool same_collective(const Thread& a, const Thread& b) {
    return a.mask == b.mask && a.kind == b.kind && same_place(a.where, b.where);
  }

  static bool same_place(const Location& a, const Location& b) {
    return a.line() == b.line() && std::strcmp(a.file_name(), b.file_name()) == 0;
  }

  // ---- errors: noted, and thrown by run_block() on the scheduler's stack. A thread that fails stops for
  // ever, so nothing on its stack may own memory. ----
  void fail(const Location& where, const char* format, unsigned value = 0) {
    note(where, format, value);
    for (;;) give_way();
  }

  void note(const Location& where, const char* format, unsigned value = 0) {
    if (error_[0] != '\0') return;
    char what[200];
    std::snprintf(what, sizeof what, format, value);
    std::snprintf(error_, sizeof error_, "%s: %s at %s:%u (block %u,%u thread %u)", kernel_, what,
                  where.file_name(), static_cast<unsigned>(where.line()), blockIdx.x, blockIdx.y, current_);
  }

  void report_deadlock() {
    for (unsigned i = 0; i < threads_.size(); ++i) {
      const Thread& t = threads_[i];
      if (t.state != State::at_collective) continue;
      for (unsigned l = 0; l < kWarp; ++l) {
        if ((t.mask >> l & 1u) == 0) continue;
        const Thread& other = threads_[i / kWarp * kWarp + l];
        current_ = i;
        if (other.state == State::done) return note(t.where, "a warp collective waits for lane %u, which has left", l);
        if (other.state == State::at_block_barrier || !same_collective(t, other))
          return note(t.where, "a warp collective waits for ever, as does a lane it names, at line %u", other.where.line());
      }
    }
    for (const Thread& t : threads_) {
      if (t.state != State::done) return note(t.where, "the block waits for ever");
    }
  }

  // ---- orders drawn from the seed ----
  std::uint64_t random() {  // xorshift64
    random_ ^= random_ << 13;
    random_ ^= random_ >> 7;
    random_ ^= random_ << 17;
    return random_;
  }

  void shuffle_order(std::vector<unsigned>& order) {
    for (std::size_t i = order.size(); i > 1; --i) std::swap(order[i - 1], order[random() % i]);
  }

  std::uint64_t seed_ = 0, random_ = 1;
  const char* kernel_ = "";
  const std::function<void()>* body_ = nullptr;

  std::vector<Thread> threads_;
  std::vector<unsigned> order_;     // in which threads start
  std::vector<unsigned> runnable_;  // threads that waited and may go on
  unsigned next_ = 0, done_ = 0, at_barrier_ = 0, current_ = 0;
  std::vector<void*> entered_;  // shared memory this block has used
  std::unique_ptr<unsigned char[]> dynamic_[kBlockSlots];
  std::size_t dynamic_bytes_ = 0;
  char error_[600] = "";

  std::vector<std::unique_ptr<Fiber>> fibers_, lost_;
  std::vector<Fiber*> idle_;
  std::vector<Fiber*> own_fibers_[kBlockSlots];  // with kRaces: by slot and thread
  Fiber* active_ = nullptr;
  HappensBefore happens_before_;
  context::fcontext_t scheduler_ = nullptr;
  Stack scheduler_stack_;
  void* scheduler_sanitizer_state_ = nullptr;
};

void Engine::fiber_main(context::transfer_t from) {
  auto* engine = static_cast<Engine*>(from.data);
  switched(nullptr, &engine->scheduler_stack_);
  engine->scheduler_ = from.fctx;
  for (;;) {
    engine->run_threads();
    engine->idle_.push_back(engine->active_);
    engine->give_way();
  }
}

Engine& engine() {
  static Engine instance;
  return instance;
}

}  // namespace

void set_seed(std::uint64_t seed) { engine().seed(seed); }
void run(const char* kernel, const dim3& grid, const dim3& block, const std::function<void()>& body,
         std::size_t shared_bytes) {
  if (on_launch) on_launch(kernel);
  engine().run(kernel, grid, block, body, shared_bytes);
}
void enter_shared(void* memory, std::size_t bytes) { engine().enter_shared(memory, bytes); }
void* dynamic_shared(const Location& where) { return engine().dynamic_shared(where); }
void block_barrier(const Location& where) { engine().wait_at_block_barrier(where); }
std::uint64_t warp_collective(Collective kind, unsigned mask, std::uint64_t value, unsigned source,
                              const Location& where) {
  return engine().wait_at_collective(kind, mask, value, source, where);
}
unsigned lane() { return engine().lane(); }
unsigned block_slot() { return engine().slot(); }
void fence() { engine().fence(); }
void before_atomic(void* address) { engine().before_atomic(address); }

}  // namespace simt
