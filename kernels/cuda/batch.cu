#include <cstdint>
#include <limits>

#include "gradflow/kernels/error.h"
#include "kernels/cuda/batch.cuh"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/launchers.h"

namespace gradflow::kernels::cuda {

void gather_batch(Queue& queue, const GatherBatch& a) {
  if (a.channels != 0 && a.height * a.width * a.channels != a.features) {
    throw InternalError("gather_batch: height, width and channels do not make up the features");
  }
  if (a.channels != 0 && a.features > std::numeric_limits<std::uint32_t>::max()) {
    throw InternalError("gather_batch: places in an image are 32 bits");
  }
  visit_storage(a.dtype, "gather_batch", [&]<class S>() {
    if (a.batch == 0) return;
    const GatherFrom from{a.images, a.labels,  a.indices, a.pixel_mean,
                          a.mean,   a.inv_std, a.batch,   a.features};
    auto* x = static_cast<S*>(a.x);
    constexpr std::size_t kPack = kPackOf<S>;
    const bool crops = a.channels != 0 && a.crops != nullptr;
    const bool whole = reinterpret_cast<std::uintptr_t>(a.images) % kPack == 0;  // a crop reads single pixels
    const bool vector = a.features % kPack == 0 && all_aligned16(x) && (crops || whole);
    const BlockGrid grid =
        matrix_grid(queue, a.batch, vector ? a.features / kPack : a.features, kBlockThreads, 4);
    if (crops) {
      launch(queue, GRADFLOW_KERNEL_OF(S, gather_crop), grid, from, a.crops, static_cast<unsigned>(a.height),
             static_cast<unsigned>(a.width), static_cast<unsigned>(a.channels), x, a.y, vector);
    } else {
      launch(queue, GRADFLOW_KERNEL_OF(S, gather_batch), grid, from, x, a.y, vector);
    }
  });
}

void cast(Queue& queue, const Cast& a) {
  require_storage(a.from, "cast");
  require_storage(a.to, "cast");
  if (a.from == a.to) throw InternalError("a cast to the same type");
  if (a.n == 0) return;
  const BlockGrid grid = flat_grid(queue, a.n, kStreamItemsPerBlock<Bf16>);
  const bool vector = all_aligned16(a.x, a.y);
  if (a.to == DType::bf16) {
    launch(queue, GRADFLOW_KERNEL(cast_to_bf16), grid, static_cast<const float*>(a.x),
           static_cast<Bf16*>(a.y), a.n, vector);
  } else {
    launch(queue, GRADFLOW_KERNEL(cast_to_f32), grid, static_cast<const Bf16*>(a.x), static_cast<float*>(a.y),
           a.n, vector);
  }
}

void random_fill(Queue& queue, const RandomFill& a) {
  visit_storage(a.dtype, "random_fill", [&]<class S>() {
    if (a.n == 0) return;
    const bool normal = a.distribution == Distribution::normal;
    const RandomNumbers numbers{a.seed, a.purpose, a.first, a.a, normal ? a.b : a.b - a.a};
    auto* x = static_cast<S*>(a.x);
    const bool vector = a.first % 2 == 0 && all_aligned16(x);
    const BlockGrid grid = flat_grid(queue, a.n, kBlockThreads * (vector ? kPackOf<S> : 1));
    if (normal) {
      launch(queue, GRADFLOW_KERNEL_OF(S, random_normal), grid, x, a.n, vector, numbers);
    } else {
      launch(queue, GRADFLOW_KERNEL_OF(S, random_uniform), grid, x, a.n, vector, numbers);
    }
  });
}

void fill(Queue& queue, DType dtype, void* pointer, std::size_t n, double value) {
  visit_storage(dtype, "fill", [&]<class S>() {
    if (n == 0) return;
    auto* x = static_cast<S*>(pointer);
    launch(queue, GRADFLOW_KERNEL_OF(S, fill), flat_grid(queue, n, kStreamItemsPerBlock<S>), x, n,
           all_aligned16(x), static_cast<float>(value));
  });
}

}  // namespace gradflow::kernels::cuda
