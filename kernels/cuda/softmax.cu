#include "kernels/cuda/launch.h"
#include "kernels/cuda/launchers.h"
#include "kernels/cuda/softmax.cuh"

namespace gradflow::kernels::cuda {

void softmax_cross_entropy(Queue& queue, const SoftmaxCrossEntropy& a) {
  visit_storage(a.dtype, "softmax_cross_entropy", [&]<class S>() {
    if (a.rows == 0 || a.classes == 0) return;
    launch(queue, GRADFLOW_KERNEL_OF(S, softmax_cross_entropy), flat_grid(queue, a.rows, kBlockThreads / 32),
           static_cast<const S*>(a.logits), a.labels, static_cast<S*>(a.dlogits), a.rows, a.classes, a.result,
           queue.scratch);
  });
}

}  // namespace gradflow::kernels::cuda
