// A batch gathered from a data set that lies on the device, and constant fills.
#pragma once

#include <cstdint>

#include "kernels/cuda/columns.cuh"
#include "kernels/cuda/stream.cuh"

namespace gradflow::kernels::cuda {

// x[b, f] = (images[indices[b], f] / 255 - mean) * inv_std; y[b] = labels[indices[b]].
// Moves 5 bytes an element, 3 in bf16.
template <class S>
__device__ inline void gather_batch(const std::uint8_t* images, const std::uint8_t* labels,
                                    const std::int32_t* indices, float mean, float inv_std, S* x,
                                    std::int32_t* y, std::size_t batch, std::size_t features) {
  walk_columns(
      batch, features, [](std::size_t) { return 0; },
      [=](std::size_t b, std::size_t f, int) {
        const auto pixel = static_cast<float>(images[static_cast<std::size_t>(indices[b]) * features + f]);
        x[b * features + f] = narrow<S>((pixel / 255.0f - mean) * inv_std);
      });
  if (blockIdx.x != 0 || threadIdx.x != 0 || y == nullptr) return;
  const std::size_t step = std::size_t{gridDim.y} * blockDim.y;
  for (std::size_t b = std::size_t{blockIdx.y} * blockDim.y + threadIdx.y; b < batch; b += step) {
    y[b] = labels[indices[b]];
  }
}

template <class S>
struct FillBody {
  static constexpr int kWidth = kPackOf<S>;
  S* x;
  float value;

  template <int W>
  __device__ int load(std::size_t) const {
    return 0;
  }
  template <int W>
  __device__ void store(std::size_t i, int) {
    Pack<W> out;
#pragma unroll
    for (int k = 0; k < W; ++k) out.v[k] = value;
    store_pack(x + i, out);
  }
};

#define GRADFLOW_BATCH_KERNELS(S, s)                                                                      \
  extern "C" __global__ void __launch_bounds__(kBlockThreads)                                             \
      gather_batch_##s(const std::uint8_t* images, const std::uint8_t* labels, const std::int32_t* indices, \
                       float mean, float inv_std, S* x, std::int32_t* y, std::size_t batch,               \
                       std::size_t features) {                                                            \
    gather_batch(images, labels, indices, mean, inv_std, x, y, batch, features);                          \
  }                                                                                                       \
  extern "C" __global__ void __launch_bounds__(kBlockThreads)                                             \
      fill_##s(S* x, std::size_t n, bool vector, float value) {                                           \
    FillBody<S> body{x, value};                                                                           \
    stream_over(n, vector, body);                                                                         \
  }

GRADFLOW_BATCH_KERNELS(float, f32)
GRADFLOW_BATCH_KERNELS(Bf16, bf16)

#undef GRADFLOW_BATCH_KERNELS

}  // namespace gradflow::kernels::cuda
