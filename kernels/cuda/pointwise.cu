#include "gradflow/kernels/error.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/launchers.h"
#include "kernels/cuda/pointwise.cuh"

namespace gradflow::kernels::cuda {
namespace {

struct PointwiseKernels {
  PointwiseId id;
  decltype(Kernel{"", relu_forward_f32}) forward;
  decltype(Kernel{"", relu_forward_stats_f32}) forward_stats;
  decltype(Kernel{"", relu_backward_f32}) backward;
  decltype(Kernel{"", relu_backward_stats_f32}) backward_stats;
};

#define GRADFLOW_POINTWISE_ROW(Op, op)                                                      \
  {ops::Op::id, GRADFLOW_KERNEL(op##_forward_f32), GRADFLOW_KERNEL(op##_forward_stats_f32), \
   GRADFLOW_KERNEL(op##_backward_f32), GRADFLOW_KERNEL(op##_backward_stats_f32)},
const PointwiseKernels kKernels[] = {GRADFLOW_POINTWISE_OPS(GRADFLOW_POINTWISE_ROW)};
#undef GRADFLOW_POINTWISE_ROW

static_assert(std::size(kKernels) == ops::All::size, "GRADFLOW_POINTWISE_OPS and ops::All list the same ops");

const PointwiseKernels& kernels_of(PointwiseId id) {
  for (const PointwiseKernels& kernels : kKernels) {
    if (kernels.id == id) return kernels;
  }
  throw InternalError("pointwise op " + std::to_string(static_cast<int>(id)) + " has no CUDA kernels");
}

}  // namespace

void pointwise_forward(Queue& queue, const PointwiseForward& a) {
  require_supported(a.dtype, "pointwise_forward");
  if (a.n == 0) return;
  const PointwiseKernels& kernels = kernels_of(a.op);
  const auto* x = static_cast<const float*>(a.x);
  auto* y = static_cast<float*>(a.y);
  const bool vector = all_aligned16(x, y);
  const BlockGrid grid = flat_grid(queue, a.n, kStreamItemsPerBlock);
  if (a.x_stats == nullptr && a.y_stats == nullptr) {
    launch(queue, kernels.forward, grid, x, y, a.n, vector);
  } else {
    launch(queue, kernels.forward_stats, grid, x, y, a.n, vector, a.x_stats, a.y_stats, queue.scratch);
  }
}

void pointwise_backward(Queue& queue, const PointwiseBackward& a) {
  require_supported(a.dtype, "pointwise_backward");
  if (a.n == 0) return;
  if (a.mode == GradMode::none) return stats(queue, {.n = a.n, .x = a.dy, .out = a.dy_stats});
  const PointwiseKernels& kernels = kernels_of(a.op);
  const auto* saved = static_cast<const float*>(a.saved);
  const auto* dy = static_cast<const float*>(a.dy);
  auto* dx = static_cast<float*>(a.dx);
  const bool vector = all_aligned16(saved, dy, dx);
  const bool accumulate = a.mode == GradMode::accumulate;
  const BlockGrid grid = flat_grid(queue, a.n, kStreamItemsPerBlock);
  if (a.dy_stats == nullptr && a.dx_stats == nullptr) {
    launch(queue, kernels.backward, grid, saved, dy, dx, a.n, vector, accumulate);
  } else {
    launch(queue, kernels.backward_stats, grid, saved, dy, dx, a.n, vector, accumulate, a.dy_stats,
           a.dx_stats, queue.scratch);
  }
}

}  // namespace gradflow::kernels::cuda
