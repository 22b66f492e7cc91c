// A step allocates nothing. This file replaces operator new for the whole test program and counts while a
// step runs. oneDNN keeps books of its own on the heap; calls that come from inside it are counted apart.
#include <dlfcn.h>
#include <execinfo.h>
#include <gtest/gtest.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <new>

#include "gradflow/engine/device.h"
#include "gradflow/engine/executor.h"
#include "gradflow/engine/feed.h"
#include "gradflow/layers/models.h"

namespace {

std::atomic<bool> counting{false};
std::atomic<int> ours{0}, of_onednn{0};
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

void* allocate(std::size_t bytes) {
  if (counting && !looking) {
    looking = true;
    ++(inside_onednn() ? of_onednn : ours);
    looking = false;
  }
  if (void* p = std::malloc(bytes ? bytes : 1)) return p;
  throw std::bad_alloc();
}

void* allocate(std::size_t bytes, std::align_val_t alignment) {
  if (counting) ++ours;
  const std::size_t a = static_cast<std::size_t>(alignment);
  if (void* p = std::aligned_alloc(a, (bytes + a - 1) / a * a)) return p;
  throw std::bad_alloc();
}

}  // namespace

void* operator new(std::size_t n) { return allocate(n); }
void* operator new[](std::size_t n) { return allocate(n); }
void* operator new(std::size_t n, std::align_val_t a) { return allocate(n, a); }
void* operator new[](std::size_t n, std::align_val_t a) { return allocate(n, a); }
void* operator new(std::size_t n, const std::nothrow_t&) noexcept { return std::malloc(n ? n : 1); }
void* operator new[](std::size_t n, const std::nothrow_t&) noexcept { return std::malloc(n ? n : 1); }
void operator delete(void* p, const std::nothrow_t&) noexcept { std::free(p); }
void operator delete[](void* p, const std::nothrow_t&) noexcept { std::free(p); }
void operator delete(void* p) noexcept { std::free(p); }
void operator delete[](void* p) noexcept { std::free(p); }
void operator delete(void* p, std::size_t) noexcept { std::free(p); }
void operator delete[](void* p, std::size_t) noexcept { std::free(p); }
void operator delete(void* p, std::align_val_t) noexcept { std::free(p); }
void operator delete[](void* p, std::align_val_t) noexcept { std::free(p); }
void operator delete(void* p, std::size_t, std::align_val_t) noexcept { std::free(p); }
void operator delete[](void* p, std::size_t, std::align_val_t) noexcept { std::free(p); }

namespace gradflow {
namespace {

TEST(Allocations, AreNoticed) {
  void* warm[2];
  ::backtrace(warm, 2);  // loads a library the first time
  counting = true;
  ours = 0;
  ::operator delete(::operator new(4));
  counting = false;
  EXPECT_EQ(ours, 1);
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
      std::vector<std::int32_t> indices(32);
      for (int step = 1; step <= 4; ++step) {  // the first two warm up
        order.batch_indices(static_cast<std::uint64_t>(step), indices);
        ours = of_onednn = 0;
        counting = step > 2;
        feed.load(indices, e.input("x"), e.input("labels"));
        adam.set_step(step);
        e.step();
        (void)e.take_loss();
        counting = false;
      }
      std::printf("[          ] %s, probes %s: %d allocations of ours, %d inside oneDNN in a step\n", spec,
                  probes ? "on" : "off", ours.load(), of_onednn.load());
      EXPECT_EQ(ours, 0) << spec;
    }
}

}  // namespace
}  // namespace gradflow
