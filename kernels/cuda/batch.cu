#include "kernels/cuda/batch.cuh"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/launchers.h"

namespace gradflow::kernels::cuda {

void gather_batch(Queue& queue, const GatherBatch& a) {
  visit_storage(a.dtype, "gather_batch", [&]<class S>() {
    if (a.batch == 0) return;
    launch(queue, GRADFLOW_KERNEL_OF(S, gather_batch), matrix_grid(queue, a.batch, a.features, kBlockThreads, 4),
           a.images, a.labels, a.indices, a.mean, a.inv_std, static_cast<S*>(a.x), a.y, a.batch, a.features);
  });
}

void fill(Queue& queue, DType dtype, void* pointer, std::size_t n, double value) {
  visit_storage(dtype, "fill", [&]<class S>() {
    if (n == 0) return;
    auto* x = static_cast<S*>(pointer);
    launch(queue, GRADFLOW_KERNEL_OF(S, fill), flat_grid(queue, n, kStreamItemsPerBlock<S>), x, n, all_aligned16(x),
           static_cast<float>(value));
  });
}

}  // namespace gradflow::kernels::cuda
