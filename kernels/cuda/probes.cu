#include "gradflow/kernels/error.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/launchers.h"
#include "kernels/cuda/probes.cuh"

namespace gradflow::kernels::cuda {
namespace {

template <class S>
Kernel<const S*, std::size_t, bool, Stats*, ReductionScratch> stats_kernel(PointwiseId id) {
#define GRADFLOW_STATS_ROW(Op, op) \
  if (id == ops::Op::id) return GRADFLOW_KERNEL_OF(S, op##_stats);
  GRADFLOW_SATURATING_OPS(GRADFLOW_STATS_ROW)
#undef GRADFLOW_STATS_ROW
  const PointwiseInfo info = info_of(id);
  if (info.saturates || info.name.empty()) {
    throw InternalError("pointwise op " + std::to_string(static_cast<int>(id)) + " has no CUDA statistics kernel");
  }
  return GRADFLOW_KERNEL_OF(S, linear_stats);
}

}  // namespace

void stats(Queue& queue, const StatsOf& a) {
  visit_storage(a.dtype, "stats", [&]<class S>() {
    if (a.n == 0 || a.out == nullptr) return;
    const auto* x = static_cast<const S*>(a.x);
    launch(queue, stats_kernel<S>(a.op), flat_grid(queue, a.n, kStreamItemsPerBlock<S>), x, a.n, all_aligned16(x),
           a.out, queue.scratch);
  });
}

void difference_stats(Queue& queue, const DifferenceStats& a) {
  visit_storage(a.dtype, "difference_stats", [&]<class S>() {
    if (a.n == 0) return;
    const auto* total = static_cast<const S*>(a.a);
    const auto* part = static_cast<const S*>(a.b);
    launch(queue, GRADFLOW_KERNEL_OF(S, difference_stats), flat_grid(queue, a.n, kStreamItemsPerBlock<S>), total,
           part, a.n, all_aligned16(total, part), a.difference, a.dot, queue.scratch);
  });
}

void exponent_histogram(Queue& queue, const ExponentHistogram& a) {
  static_assert(sizeof(unsigned long long) == sizeof(std::uint64_t));
  visit_storage(a.dtype, "exponent_histogram", [&]<class S>() {
    if (a.n == 0 || a.bins == nullptr) return;
    const auto* x = static_cast<const S*>(a.x);
    launch(queue, GRADFLOW_KERNEL_OF(S, exponent_histogram), flat_grid(queue, a.n, kStreamItemsPerBlock<S>), x, a.n,
           all_aligned16(x), reinterpret_cast<unsigned long long*>(a.bins));
  });
}

}  // namespace gradflow::kernels::cuda
