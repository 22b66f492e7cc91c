#include "kernels/cuda/launch.h"
#include "kernels/cuda/launchers.h"
#include "kernels/cuda/softmax.cuh"

namespace gradflow::kernels::cuda {

void softmax_cross_entropy(Queue& queue, const SoftmaxCrossEntropy& a) {
  require_supported(a.dtype, "softmax_cross_entropy");
  if (a.rows == 0 || a.classes == 0) return;
  launch(queue, GRADFLOW_KERNEL(softmax_cross_entropy_f32), flat_grid(queue, a.rows, kBlockThreads / 32),
         static_cast<const float*>(a.logits), a.labels, static_cast<float*>(a.dlogits), a.rows, a.classes,
         a.result, queue.scratch);
}

}  // namespace gradflow::kernels::cuda
