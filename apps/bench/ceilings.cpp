#include "apps/bench/ceilings.h"

#include <algorithm>
#include <chrono>
#include <functional>
#include <limits>

#include "gradflow/engine/memory.h"

namespace gradflow::app {
namespace {

using Clock = std::chrono::steady_clock;

// The best of several runs: a ceiling is what is possible, so disturbances are left out.
double best_seconds(kernels::Backend& backend, int runs, const std::function<void()>& work) {
  double best = std::numeric_limits<double>::infinity();
  for (int i = 0; i <= runs; ++i) {
    backend.synchronize();
    const auto start = Clock::now();
    work();
    backend.synchronize();
    if (i > 0)
      best =
          std::min(best, std::chrono::duration<double>(Clock::now() - start).count());  // the first warms up
  }
  return best;
}

}  // namespace

Ceilings measure_ceilings(kernels::Backend& backend, DType dtype) {
  Ceilings c;
  {
    const std::int64_t n = backend.is_host() ? 1024 : 4096;
    const std::size_t elements = static_cast<std::size_t>(n * n);
    const DType type = dtype == DType::bf16 ? DType::bf16 : DType::f32;
    const auto product = backend.prepare_matmul({.dtype = type, .m = n, .n = n, .k = n, .y_dtype = type});
    DeviceMemory a(backend, 4 * elements), b(backend, 4 * elements), y(backend, 4 * elements);
    DeviceMemory workspace(backend, product->workspace_bytes());
    backend.fill(type, a.data(), elements, 0.5);
    backend.fill(type, b.data(), elements, 0.25);
    const double seconds = best_seconds(
        backend, 20, [&] { product->run(a.data(), b.data(), nullptr, y.data(), workspace.data()); });
    c.matmul_flops = 2.0 * static_cast<double>(n) * static_cast<double>(n) * static_cast<double>(n) / seconds;
  }
  {
    const std::size_t elements = std::size_t{1} << (backend.is_host() ? 24 : 26);  // 64 or 256 MiB an array
    DeviceMemory a(backend, 4 * elements), b(backend, 4 * elements), y(backend, 4 * elements),
        gates(backend, sizeof(kernels::Gates));
    for (const DeviceMemory* m : {&a, &b, &y}) backend.fill(DType::f32, m->data(), elements, 1);
    backend.fill(DType::f32, gates.data(), 4, 1);
    const double seconds = best_seconds(backend, 10, [&] {
      backend.residual_forward({.dtype = DType::f32,
                                .n = elements,
                                .skip = a.data(),
                                .branch = b.data(),
                                .y = y.data(),
                                .gates = gates.as<kernels::Gates>(),
                                .scale = 0.5});
    });
    c.triad_bytes = 12.0 * static_cast<double>(elements) / seconds;
  }
  return c;
}

}  // namespace gradflow::app
