#include "gradflow/kernels/error.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/launchers.h"
#include "kernels/cuda/pointwise.cuh"

namespace gradflow::kernels::cuda {
namespace {

template <class S>
struct PointwiseKernels {
  PointwiseId id;
  Kernel<const S*, S*, std::size_t, bool> forward;
  Kernel<const S*, S*, std::size_t, bool, Sinks, Sinks, ReductionScratch> forward_stats;
  Kernel<const S*, const S*, S*, std::size_t, bool, bool> backward;
  Kernel<const S*, const S*, S*, std::size_t, bool, bool, Sinks, Sinks, ReductionScratch> backward_stats;
};

template <class S>
const PointwiseKernels<S>& kernels_of(PointwiseId id) {
#define GRADFLOW_POINTWISE_ROW(Op, op)                                                            \
  {ops::Op::id, GRADFLOW_KERNEL_OF(S, op##_forward), GRADFLOW_KERNEL_OF(S, op##_forward_stats),   \
   GRADFLOW_KERNEL_OF(S, op##_backward), GRADFLOW_KERNEL_OF(S, op##_backward_stats)},
  static const PointwiseKernels<S> kKernels[] = {GRADFLOW_POINTWISE_OPS(GRADFLOW_POINTWISE_ROW)};
#undef GRADFLOW_POINTWISE_ROW
  static_assert(std::size(kKernels) == ops::All::size, "GRADFLOW_POINTWISE_OPS and ops::All list the same ops");
  for (const PointwiseKernels<S>& kernels : kKernels) {
    if (kernels.id == id) return kernels;
  }
  throw InternalError("pointwise op " + std::to_string(static_cast<int>(id)) + " has no CUDA kernels");
}

template <class S>
void forward(Queue& queue, const PointwiseForward& a) {
  const PointwiseKernels<S>& kernels = kernels_of<S>(a.op);
  const auto* x = static_cast<const S*>(a.x);
  auto* y = static_cast<S*>(a.y);
  const bool vector = all_aligned16(x, y);
  const BlockGrid grid = flat_grid(queue, a.n, kStreamItemsPerBlock<S>);
  const Sinks x_sinks = sinks(a.x_stats, a.x_exponents), y_sinks = sinks(a.y_stats, a.y_exponents);
  if (any(x_sinks) || any(y_sinks)) {
    launch(queue, kernels.forward_stats, grid, x, y, a.n, vector, x_sinks, y_sinks, queue.scratch);
  } else {
    launch(queue, kernels.forward, grid, x, y, a.n, vector);
  }
}

template <class S>
void backward(Queue& queue, const PointwiseBackward& a) {
  const PointwiseKernels<S>& kernels = kernels_of<S>(a.op);
  const auto* saved = static_cast<const S*>(a.saved);
  const auto* dy = static_cast<const S*>(a.dy);
  auto* dx = static_cast<S*>(a.dx);
  const bool vector = all_aligned16(saved, dy, dx);
  const bool accumulate = a.mode == GradMode::accumulate;
  const BlockGrid grid = flat_grid(queue, a.n, kStreamItemsPerBlock<S>);
  const Sinks dy_sinks = sinks(a.dy_stats, a.dy_exponents), dx_sinks = sinks(a.dx_stats, a.dx_exponents);
  if (any(dy_sinks) || any(dx_sinks)) {
    launch(queue, kernels.backward_stats, grid, saved, dy, dx, a.n, vector, accumulate, dy_sinks, dx_sinks,
           queue.scratch);
  } else {
    launch(queue, kernels.backward, grid, saved, dy, dx, a.n, vector, accumulate);
  }
}

}  // namespace

void pointwise_forward(Queue& queue, const PointwiseForward& a) {
  visit_storage(a.dtype, "pointwise_forward", [&]<class S>() {
    if (a.n != 0) forward<S>(queue, a);
  });
}

void pointwise_backward(Queue& queue, const PointwiseBackward& a) {
  if (a.mode == GradMode::none) {
    stats(queue, {.dtype = a.dtype, .n = a.n, .x = a.dy, .out = a.dy_stats});
    return exponent_histogram(queue, {.dtype = a.dtype, .n = a.n, .x = a.dy, .bins = a.dy_exponents});
  }
  visit_storage(a.dtype, "pointwise_backward", [&]<class S>() {
    if (a.n != 0) backward<S>(queue, a);
  });
}

}  // namespace gradflow::kernels::cuda
