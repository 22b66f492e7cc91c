#include "kernels/cuda/launch.h"
#include "kernels/cuda/launchers.h"
#include "kernels/cuda/softmax.cuh"

namespace gradflow::kernels::cuda {

void softmax_cross_entropy(Queue& queue, const SoftmaxCrossEntropy& a) {
  visit_storage(a.dtype, "softmax_cross_entropy", [&]<class S>() {
    if (a.rows == 0 || a.classes == 0) return;
    const auto* logits = static_cast<const S*>(a.logits);
    auto* dlogits = static_cast<S*>(a.dlogits);
    const bool vector = a.classes % kPackOf<S> == 0 && all_aligned16(logits, dlogits);
    const std::size_t packs = vector ? a.classes / kPackOf<S> : a.classes;
    const std::size_t in_flight = vector ? kPacksHeld<kPackOf<S>> : kPacksHeld<1>;
    unsigned lanes = 1;  // of a row, which they read at once if they can; each has a pack
    while (lanes < 32 && lanes * in_flight < packs) lanes *= 2;
    const std::size_t of_lane = (packs + lanes - 1) / lanes;
    const bool fits = of_lane <= (vector ? kRowPacks<kPackOf<S>> : kRowPacks<1>);
    launch(queue, GRADFLOW_KERNEL_OF(S, softmax_cross_entropy), flat_grid(queue, a.rows, kBlockThreads / lanes),
           logits, a.labels, dlogits,
           SoftmaxRows{a.rows, a.classes, lanes, fits ? static_cast<unsigned>(of_lane) : 0u}, vector, a.result,
           queue.scratch);
  });
}

}  // namespace gradflow::kernels::cuda
