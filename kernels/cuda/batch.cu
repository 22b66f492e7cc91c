#include "kernels/cuda/batch.cuh"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/launchers.h"

namespace gradflow::kernels::cuda {

void gather_batch(Queue& queue, const GatherBatch& a) {
  require_supported(a.dtype, "gather_batch");
  if (a.batch == 0) return;
  launch(queue, GRADFLOW_KERNEL(gather_batch_f32), matrix_grid(queue, a.batch, a.features, kBlockThreads, 4),
         a.images, a.labels, a.indices, a.mean, a.inv_std, static_cast<float*>(a.x), a.y, a.batch,
         a.features);
}

void fill(Queue& queue, DType dtype, void* pointer, std::size_t n, double value) {
  require_supported(dtype, "fill");
  if (n == 0) return;
  auto* x = static_cast<float*>(pointer);
  launch(queue, GRADFLOW_KERNEL(fill_f32), flat_grid(queue, n, kStreamItemsPerBlock), x, n, all_aligned16(x),
         static_cast<float>(value));
}

}  // namespace gradflow::kernels::cuda
