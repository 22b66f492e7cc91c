#include "kernels/cuda/launch.h"
#include "kernels/cuda/launchers.h"
#include "kernels/cuda/residual.cuh"

namespace gradflow::kernels::cuda {
namespace {

template <class S>
void forward(Queue& queue, const ResidualForward& a) {
  const auto* skip = static_cast<const S*>(a.skip);
  const auto* branch = static_cast<const S*>(a.branch);
  auto* y = static_cast<S*>(a.y);
  const bool vector = all_aligned16(skip, branch, y);
  const BlockGrid grid = flat_grid(queue, a.n, kStreamItemsPerBlock<S>);
  if (a.y_stats == nullptr) {
    launch(queue, GRADFLOW_KERNEL_OF(S, residual_forward), grid, skip, branch, y, a.gates, a.scale, a.n, vector);
  } else {
    launch(queue, GRADFLOW_KERNEL_OF(S, residual_forward_stats), grid, skip, branch, y, a.gates, a.scale, a.n,
           vector, a.y_stats, queue.scratch);
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
  if (a.dy_stats == nullptr) {
    launch(queue, GRADFLOW_KERNEL_OF(S, residual_backward), grid, dy, skip, branch, a.gates, a.scale, a.n, vector);
  } else {
    launch(queue, GRADFLOW_KERNEL_OF(S, residual_backward_stats), grid, dy, skip, branch, a.gates, a.scale, a.n,
           vector, a.dy_stats, queue.scratch);
  }
}

}  // namespace

void residual_forward(Queue& queue, const ResidualForward& a) {
  visit_storage(a.dtype, "residual_forward", [&]<class S>() {
    if (a.n != 0) forward<S>(queue, a);
  });
}

void residual_backward(Queue& queue, const ResidualBackward& a) {
  const bool nothing_wanted =
      a.skip_mode == GradMode::none && a.branch_mode == GradMode::none && a.dy_stats == nullptr;
  visit_storage(a.dtype, "residual_backward", [&]<class S>() {
    if (a.n != 0 && !nothing_wanted) backward<S>(queue, a);
  });
}

}  // namespace gradflow::kernels::cuda
