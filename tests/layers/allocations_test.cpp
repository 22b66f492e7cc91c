// A step allocates nothing, and data that stay in files take no memory that grows with them. This file replaces
// operator new for the whole test program, and malloc with its sisters where no sanitizer has done so, and counts
// while a test asks for it. oneDNN keeps books of its own on the heap; calls that come from inside it are counted
// apart.
#include <dlfcn.h>
#include <execinfo.h>
#include <gtest/gtest.h>
#include <malloc.h>

#include <atomic>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <new>

#include "engine/image_files.h"
#include "gradflow/engine/device.h"
#include "gradflow/engine/executor.h"
#include "gradflow/engine/feed.h"
#include "gradflow/engine/train_step.h"
#include "gradflow/layers/models.h"

namespace {

std::atomic<bool> counting{false};
std::atomic<int> ours{0}, of_onednn{0};
std::atomic<std::int64_t> held{0}, most_held{0};  // bytes that came and did not go while `weighing`
std::atomic<bool> weighing{false};
thread_local bool looking = false;

bool inside_onednn() {
  void* frames[24];
  const int count = ::backtrace(frames, 24);
  for (int i = 0; i < count; ++i) {
    Dl_info info{};
    if (::dladdr(frames[i], &info) && info.dli_fname && std::strstr(info.dli_fname, "libdnnl")) return true;
  }
  return false;
}

void* weighed(void* p) {
  if (weighing && p) {
    const std::int64_t now = held += static_cast<std::int64_t>(::malloc_usable_size(p));
    for (std::int64_t most = most_held; now > most && !most_held.compare_exchange_weak(most, now);) {
    }
  }
  return p;
}

void release(void* p) {
  if (weighing && p) held -= static_cast<std::int64_t>(::malloc_usable_size(p));
  std::free(p);
}

void count_one() {
  if (!counting || looking) return;
  looking = true;
  ++(inside_onednn() ? of_onednn : ours);
  looking = false;
}

}  // namespace

#ifdef __SANITIZE_ADDRESS__
constexpr bool kCountsMalloc = false;
#else
constexpr bool kCountsMalloc = true;
extern "C" {
void* __libc_malloc(std::size_t bytes);
void* __libc_calloc(std::size_t count, std::size_t bytes);
void* __libc_realloc(void* p, std::size_t bytes);
void* __libc_memalign(std::size_t alignment, std::size_t bytes);

void* malloc(std::size_t bytes) noexcept {
  count_one();
  return __libc_malloc(bytes);
}
void* calloc(std::size_t count, std::size_t bytes) noexcept {
  count_one();
  return __libc_calloc(count, bytes);
}
void* realloc(void* p, std::size_t bytes) noexcept {
  count_one();
  return __libc_realloc(p, bytes);
}
void* aligned_alloc(std::size_t alignment, std::size_t bytes) noexcept {
  count_one();
  return __libc_memalign(alignment, bytes);
}
int posix_memalign(void** p, std::size_t alignment, std::size_t bytes) noexcept {
  count_one();
  *p = __libc_memalign(alignment, bytes);
  return *p ? 0 : ENOMEM;
}
}
#endif

namespace {

void* allocate(std::size_t bytes) {
  if (!kCountsMalloc) count_one();
  if (void* p = weighed(std::malloc(bytes ? bytes : 1))) return p;
  throw std::bad_alloc();
}

void* allocate(std::size_t bytes, std::align_val_t alignment) {
  if (!kCountsMalloc) count_one();
  const std::size_t a = static_cast<std::size_t>(alignment);
  if (void* p = weighed(std::aligned_alloc(a, (bytes + a - 1) / a * a))) return p;
  throw std::bad_alloc();
}

}  // namespace

void* operator new(std::size_t n) { return allocate(n); }
void* operator new[](std::size_t n) { return allocate(n); }
void* operator new(std::size_t n, std::align_val_t a) { return allocate(n, a); }
void* operator new[](std::size_t n, std::align_val_t a) { return allocate(n, a); }
void* operator new(std::size_t n, const std::nothrow_t&) noexcept { return weighed(std::malloc(n ? n : 1)); }
void* operator new[](std::size_t n, const std::nothrow_t&) noexcept { return weighed(std::malloc(n ? n : 1)); }
void operator delete(void* p, const std::nothrow_t&) noexcept { release(p); }
void operator delete[](void* p, const std::nothrow_t&) noexcept { release(p); }
void operator delete(void* p) noexcept { release(p); }
void operator delete[](void* p) noexcept { release(p); }
void operator delete(void* p, std::size_t) noexcept { release(p); }
void operator delete[](void* p, std::size_t) noexcept { release(p); }
void operator delete(void* p, std::align_val_t) noexcept { release(p); }
void operator delete[](void* p, std::align_val_t) noexcept { release(p); }
void operator delete(void* p, std::size_t, std::align_val_t) noexcept { release(p); }
void operator delete[](void* p, std::size_t, std::align_val_t) noexcept { release(p); }

namespace gradflow {
namespace {

TEST(Allocations, AreNoticed) {
  const volatile std::size_t volatile_size = 64;  // or the compiler leaves out what nobody uses
  void* warm[2];
  ::backtrace(warm, 2);  // loads a library the first time
  counting = true;
  ours = 0;
  ::operator delete(::operator new(4));
  std::free(std::malloc(volatile_size));
  std::free(std::aligned_alloc(64, volatile_size));
  counting = false;
  EXPECT_EQ(ours, kCountsMalloc ? 3 : 1);
}

TEST(Allocations, AStepMakesNone) {
  const Dataset data = load_dataset("synthetic:n=256,test=32,features=24,classes=5");
  void* warm[2];
  ::backtrace(warm, 2);
  for (const char* spec : {"mlp:depth=6,width=32", "mlp:depth=6,width=32,act=tanh,skip=on,norm=bn"})
    for (const bool probes : {false, true}) {
      const auto device = open_device("cpu");
      const Model m = build_model(parse_model(spec), {.batch = 32, .features = 24, .classes = 5});
      ParameterStore parameters(*device, m.graph);
      parameters.initialize(m.spec.mlp.initializer, 1);
      Optimizer adam(parameters, {.kind = kernels::OptimizerKind::adam, .learning_rate = 0.001});
      ExecutorOptions options;
      options.history = 4;
      if (probes) options.probes = all_scalar_probes(m.graph, true, true);
      Executor e(m.graph, parameters, &adam, options);
      Feed feed(*device, data, data.train);
      BatchOrder order(feed.count(), 32, 1);
      for (std::uint64_t step = 0; step < 4; ++step) {  // the first two warm up
        ours = of_onednn = 0;
        counting = step > 1;
        train_step(e, feed, order, step);
        counting = false;
      }
      std::printf("[          ] %s, probes %s: %d allocations of ours, %d inside oneDNN in a step\n", spec,
                  probes ? "on" : "off", ours.load(), of_onednn.load());
      EXPECT_EQ(ours, 0) << spec;
    }
}

// 6 MB of images: checked, normalized and streamed, shuffled, cropped and mirrored, over an epoch.
TEST(Allocations, ImagesThatStayInFilesAreNotHeld) {
  const test::TempDir dir;
  test::write_idx_folder(dir.path(), 1500, 20, 64, 64);
  const std::string spec = "idx:" + dir.path().string();
  const auto device = open_device("cpu", 1);
  const auto most_while = [&](const std::function<void()>& what) {
    held = most_held = 0;
    weighing = true;
    what();
    weighing = false;
    return most_held.load();
  };
  const auto stream = [&](const Dataset& data) {
    Feed feed(*device, data, data.train, parse_augmentation("standard"), FeedPlacement::streamed);
    std::vector<float> x(16 * 64 * 64);
    std::vector<std::int32_t> labels(16);
    BatchOrder order(feed.count(), 16, 1);
    for (std::uint64_t step = 0; step < order.steps_per_epoch(); ++step) {
      feed.load_augmented(order.batch(step), {x.data(), {{16, 64, 64, 1}}}, {labels.data(), {{16}, DType::i32}}, 1, step);
      feed.announce(order.batch(step + 1), 1, step + 1);
    }
  };
  constexpr std::int64_t kImages = 1500 * 64 * 64;
  // One run of 1 MiB at a time while they are checked; then a batch as floats, and labels and order.
  EXPECT_LT(most_while([&] { stream(open_dataset(spec)); }), kImages / 3);
  EXPECT_GT(most_while([&] { stream(load_dataset(spec)); }), kImages) << "the scale does not weigh";
}

}  // namespace
}  // namespace gradflow
