#include "gradflow/kernels/error.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/launchers.h"
#include "kernels/cuda/residual.cuh"

namespace gradflow::kernels::cuda {
namespace {

template <class S>
struct ResidualKernels {
  PointwiseId id;
  Kernel<const S*, const S*, S*, const Gates*, double, std::size_t, bool> forward;
  Kernel<const S*, const S*, GradientOut<S>, GradientOut<S>, const Gates*, double, std::size_t, bool> backward;
};

template <class S>
const ResidualKernels<S>& kernels_of(PointwiseId id) {
#define GRADFLOW_RESIDUAL_ROW(Op, op) \
  {ops::Op::id, GRADFLOW_KERNEL_OF(S, residual_##op##_forward), GRADFLOW_KERNEL_OF(S, residual_##op##_backward)},
  static const ResidualKernels<S> kKernels[] = {GRADFLOW_FROM_OUTPUT_OPS(GRADFLOW_RESIDUAL_ROW)};
#undef GRADFLOW_RESIDUAL_ROW
  for (const ResidualKernels<S>& kernels : kKernels) {
    if (kernels.id == id) return kernels;
  }
  throw InternalError("a residual addition cannot have " + std::string(info_of(id).name) +
                      " behind it: the op does not save its output");
}

template <class S>
void forward(Queue& queue, const ResidualForward& a) {
  const auto* skip = static_cast<const S*>(a.skip);
  const auto* branch = static_cast<const S*>(a.branch);
  auto* y = static_cast<S*>(a.y);
  const bool vector = all_aligned16(skip, branch, y);
  const BlockGrid grid = flat_grid(queue, a.n, kStreamItemsPerBlock<S>);
  const Sinks y_sinks = sinks(a.y_stats, a.y_exponents);
  if (a.op != PointwiseId::identity) {
    launch(queue, kernels_of<S>(a.op).forward, grid, skip, branch, y, a.gates, a.scale, a.n, vector);
    stats(queue, {.dtype = a.dtype, .n = a.n, .x = y, .op = a.op, .out = a.y_stats});
    exponent_histogram(queue, {.dtype = a.dtype, .n = a.n, .x = y, .bins = a.y_exponents});
  } else if (!any(y_sinks)) {
    launch(queue, GRADFLOW_KERNEL_OF(S, residual_forward), grid, skip, branch, y, a.gates, a.scale, a.n, vector);
  } else {
    launch(queue, GRADFLOW_KERNEL_OF(S, residual_forward_stats), grid, skip, branch, y, a.gates, a.scale, a.n,
           vector, y_sinks, queue.scratch);
  }
}

template <class S>
void backward(Queue& queue, const ResidualBackward& a) {
  const auto* dy = static_cast<const S*>(a.dy);
  const auto out = [](void* to, GradMode mode) {
    return GradientOut<S>{mode == GradMode::none ? nullptr : static_cast<S*>(to), mode};
  };
  const GradientOut<S> skip = out(a.dskip, a.skip_mode);
  const GradientOut<S> branch = out(a.dbranch, a.branch_mode);
  const bool vector = all_aligned16(dy, skip.to, branch.to);
  const BlockGrid grid = flat_grid(queue, a.n, kStreamItemsPerBlock<S>);
  const Sinks dy_sinks = sinks(a.dy_stats, a.dy_exponents);
  if (a.op != PointwiseId::identity) {
    const ResidualKernels<S>& kernels = kernels_of<S>(a.op);
    const auto* y = static_cast<const S*>(a.y);
    if (y == nullptr && a.n > 0) throw InternalError("residual_backward: the output is missing");
    // Before dy may be overwritten.
    stats(queue, {.dtype = a.dtype, .n = a.n, .x = dy, .out = a.dy_stats});
    exponent_histogram(queue, {.dtype = a.dtype, .n = a.n, .x = dy, .bins = a.dy_exponents});
    if (skip.to == nullptr && branch.to == nullptr) return;
    launch(queue, kernels.backward, grid, y, dy, skip, branch, a.gates, a.scale, a.n, vector && all_aligned16(y));
  } else if (!any(dy_sinks)) {
    launch(queue, GRADFLOW_KERNEL_OF(S, residual_backward), grid, dy, skip, branch, a.gates, a.scale, a.n, vector);
  } else {
    launch(queue, GRADFLOW_KERNEL_OF(S, residual_backward_stats), grid, dy, skip, branch, a.gates, a.scale, a.n,
           vector, dy_sinks, queue.scratch);
  }
}

}  // namespace

void residual_forward(Queue& queue, const ResidualForward& a) {
  visit_storage(a.dtype, "residual_forward", [&]<class S>() {
    if (a.n != 0) forward<S>(queue, a);
  });
}

void residual_backward(Queue& queue, const ResidualBackward& a) {
  const bool nothing_wanted = a.skip_mode == GradMode::none && a.branch_mode == GradMode::none &&
                              a.dy_stats == nullptr && a.dy_exponents == nullptr;
  visit_storage(a.dtype, "residual_backward", [&]<class S>() {
    if (a.n != 0 && !nothing_wanted) backward<S>(queue, a);
  });
}

}  // namespace gradflow::kernels::cuda
