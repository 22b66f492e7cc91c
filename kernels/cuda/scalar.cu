#include "kernels/cuda/launch.h"
#include "kernels/cuda/launchers.h"
#include "kernels/cuda/scalar.cuh"

namespace gradflow::kernels::cuda {

void scalar_forward(Queue& queue, const ScalarForward& a) {
  visit_storage(a.dtype, "scalar_forward", [&]<class S>() {
    if (a.n == 0) return;
    const auto* x = static_cast<const S*>(a.x);
    auto* y = static_cast<S*>(a.y);
    launch(queue, GRADFLOW_KERNEL_OF(S, scalar_forward), flat_grid(queue, a.n, kStreamItemsPerBlock<S>), x, y,
           static_cast<const float*>(a.scale), static_cast<const float*>(a.shift), a.n, all_aligned16(x, y));
  });
}

void scalar_backward(Queue& queue, const ScalarBackward& a) {
  visit_storage(a.dtype, "scalar_backward", [&]<class S>() {
    const bool wants_dx = a.mode != GradMode::none;
    if (a.n == 0 || (!wants_dx && a.dscale == nullptr && a.dshift == nullptr)) return;
    const auto* x = a.dscale != nullptr ? static_cast<const S*>(a.x) : nullptr;
    const auto* dy = static_cast<const S*>(a.dy);
    auto* dx = wants_dx ? static_cast<S*>(a.dx) : nullptr;
    launch(queue, GRADFLOW_KERNEL_OF(S, scalar_backward), flat_grid(queue, a.n, kStreamItemsPerBlock<S>), x, dy, dx,
           a.mode == GradMode::accumulate, static_cast<const float*>(a.scale), static_cast<float*>(a.dscale),
           static_cast<float*>(a.dshift), a.parameter_mode == GradMode::accumulate, a.n, all_aligned16(x, dy, dx),
           queue.scratch);
  });
}

}  // namespace gradflow::kernels::cuda
