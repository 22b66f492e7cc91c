#include "gradflow/kernels/error.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/launchers.h"
#include "kernels/cuda/probes.cuh"

namespace gradflow::kernels::cuda {
namespace {

struct StatsKernel {
  PointwiseId id;
  decltype(Kernel{"", linear_stats_f32}) kernel;
};

#define GRADFLOW_STATS_ROW(Op, op) {ops::Op::id, GRADFLOW_KERNEL(op##_stats_f32)},
const StatsKernel kStatsKernels[] = {GRADFLOW_POINTWISE_OPS(GRADFLOW_STATS_ROW)};
#undef GRADFLOW_STATS_ROW

constexpr std::size_t kItemsPerBlock = kStreamItemsPerBlock;

}  // namespace

void stats(Queue& queue, const StatsOf& a) {
  require_supported(a.dtype, "stats");
  if (a.n == 0 || a.out == nullptr) return;
  const auto* x = static_cast<const float*>(a.x);
  for (const StatsKernel& row : kStatsKernels) {
    if (row.id != a.op) continue;
    launch(queue, row.kernel, flat_grid(queue, a.n, kItemsPerBlock), x, a.n, all_aligned16(x), a.out,
           queue.scratch);
    return;
  }
  throw InternalError("pointwise op " + std::to_string(static_cast<int>(a.op)) +
                      " has no CUDA statistics kernel");
}

void difference_stats(Queue& queue, const DifferenceStats& a) {
  require_supported(a.dtype, "difference_stats");
  if (a.n == 0) return;
  const auto* total = static_cast<const float*>(a.a);
  const auto* part = static_cast<const float*>(a.b);
  launch(queue, GRADFLOW_KERNEL(difference_stats_f32), flat_grid(queue, a.n, kItemsPerBlock), total, part,
         a.n, all_aligned16(total, part), a.difference, a.dot, queue.scratch);
}

void exponent_histogram(Queue& queue, const ExponentHistogram& a) {
  require_supported(a.dtype, "exponent_histogram");
  if (a.n == 0) return;
  const auto* x = static_cast<const float*>(a.x);
  static_assert(sizeof(unsigned long long) == sizeof(std::uint64_t));
  launch(queue, GRADFLOW_KERNEL(exponent_histogram_f32), flat_grid(queue, a.n, kItemsPerBlock), x, a.n,
         all_aligned16(x), reinterpret_cast<unsigned long long*>(a.bins));
}

}  // namespace gradflow::kernels::cuda
