#include "kernels/cuda/launch.h"
#include "kernels/cuda/launchers.h"
#include "kernels/cuda/residual.cuh"

namespace gradflow::kernels::cuda {

void residual_forward(Queue& queue, const ResidualForward& a) {
  require_supported(a.dtype, "residual_forward");
  if (a.n == 0) return;
  const auto* skip = static_cast<const float*>(a.skip);
  const auto* branch = static_cast<const float*>(a.branch);
  auto* y = static_cast<float*>(a.y);
  const bool vector = all_aligned16(skip, branch, y);
  const BlockGrid grid = flat_grid(queue, a.n, kStreamItemsPerBlock);
  if (a.y_stats == nullptr) {
    launch(queue, GRADFLOW_KERNEL(residual_forward_f32), grid, skip, branch, y, a.gates, a.scale, a.n,
           vector);
  } else {
    launch(queue, GRADFLOW_KERNEL(residual_forward_stats_f32), grid, skip, branch, y, a.gates, a.scale, a.n,
           vector, a.y_stats, queue.scratch);
  }
}

void residual_backward(Queue& queue, const ResidualBackward& a) {
  require_supported(a.dtype, "residual_backward");
  const bool nothing_wanted =
      a.skip_mode == GradMode::none && a.branch_mode == GradMode::none && a.dy_stats == nullptr;
  if (a.n == 0 || nothing_wanted) return;
  const auto* dy = static_cast<const float*>(a.dy);
  const auto out = [](void* to, GradMode mode) {
    return GradientOut{mode == GradMode::none ? nullptr : static_cast<float*>(to), mode};
  };
  const GradientOut skip = out(a.dskip, a.skip_mode);
  const GradientOut branch = out(a.dbranch, a.branch_mode);
  const bool vector = all_aligned16(dy, skip.to, branch.to);
  const BlockGrid grid = flat_grid(queue, a.n, kStreamItemsPerBlock);
  if (a.dy_stats == nullptr) {
    launch(queue, GRADFLOW_KERNEL(residual_backward_f32), grid, dy, skip, branch, a.gates, a.scale, a.n,
           vector);
  } else {
    launch(queue, GRADFLOW_KERNEL(residual_backward_stats_f32), grid, dy, skip, branch, a.gates, a.scale, a.n,
           vector, a.dy_stats, queue.scratch);
  }
}

}  // namespace gradflow::kernels::cuda
