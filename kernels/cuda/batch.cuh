// A batch gathered from a data set that lies on the device, constant and random fills, casts.
#pragma once

#include <cstdint>

#include "gradflow/kernels/random.h"
#include "kernels/cuda/columns.cuh"
#include "kernels/cuda/stream.cuh"

namespace gradflow::kernels::cuda {

// What gather_batch reads. pixel_mean may be null, then `mean` holds for all features.
struct GatherFrom {
  const std::uint8_t* images;
  const std::uint16_t* labels;
  const std::int32_t* indices;
  const float* pixel_mean;
  float mean, inv_std;
  std::size_t batch, features;

  __device__ const std::uint8_t* image(std::size_t b) const {
    return images + static_cast<std::size_t>(indices[b]) * features;
  }
  __device__ float value(std::uint8_t pixel, float center) const {
    return (static_cast<float>(pixel) / 255.0f - center) * inv_std;
  }
  __device__ float center(std::size_t f) const { return pixel_mean != nullptr ? pixel_mean[f] : mean; }
};

__device__ inline void gather_labels(const GatherFrom& from, std::int32_t* y) {
  if (blockIdx.x != 0 || threadIdx.x != 0 || y == nullptr) return;
  const std::size_t step = std::size_t{gridDim.y} * blockDim.y;
  for (std::size_t b = std::size_t{blockIdx.y} * blockDim.y + threadIdx.y; b < from.batch; b += step) {
    y[b] = from.labels[from.indices[b]];
  }
}

// x[b, f] = (images[indices[b], f] / 255 - mean) * inv_std; y[b] = labels[indices[b]].
// Moves 5 bytes an element, 3 in bf16.
template <class S>
__device__ inline void gather_batch(const GatherFrom& from, S* x, std::int32_t* y) {
  walk_columns(
      from.batch, from.features, [&](std::size_t f) { return from.center(f); },
      [&](std::size_t b, std::size_t f, float center) {
        x[b * from.features + f] = narrow<S>(from.value(from.image(b)[f], center));
      });
  gather_labels(from, y);
}

// The same of shifted and mirrored images; a thread keeps its place (i, j, c) in the output.
template <class S>
__device__ inline void gather_crop(const GatherFrom& from, const std::int8_t* crops, unsigned height,
                                   unsigned width, unsigned channels, S* x, std::int32_t* y) {
  struct Place {
    int i, j;
    unsigned c;
  };
  const auto place_of = [=](std::size_t f) {
    const auto pixel = static_cast<unsigned>(f / channels);
    return Place{static_cast<int>(pixel / width), static_cast<int>(pixel % width),
                 static_cast<unsigned>(f % channels)};
  };
  walk_columns(from.batch, from.features, place_of, [&](std::size_t b, std::size_t f, const Place& at) {
    const std::int8_t* crop = crops + 3 * b;
    const int i = at.i + crop[0];
    const int j = (crop[2] != 0 ? static_cast<int>(width) - 1 - at.j : at.j) + crop[1];
    float v = 0.0f;
    if (i >= 0 && i < static_cast<int>(height) && j >= 0 && j < static_cast<int>(width)) {
      const std::size_t source = (static_cast<std::size_t>(i) * width + static_cast<unsigned>(j)) * channels + at.c;
      v = from.value(from.image(b)[source], from.center(source));
    }
    x[b * from.features + f] = narrow<S>(v);
  });
  gather_labels(from, y);
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

template <class From, class To>
struct CastBody {
  static constexpr int kWidth = 8;  // 16 bytes of bf16, 32 of f32
  const From* x;
  To* y;

  template <int W>
  __device__ Pack<W> load(std::size_t i) const {
    return load_pack<W>(x + i);
  }
  template <int W>
  __device__ void store(std::size_t i, const Pack<W>& in) {
    store_pack(y + i, in);
  }
};

// Moves 6 bytes an element.
extern "C" __global__ void __launch_bounds__(kBlockThreads)
    cast_to_bf16(const float* x, Bf16* y, std::size_t n, bool vector) {
  CastBody<float, Bf16> body{x, y};
  stream_over(n, vector, body);
}

extern "C" __global__ void __launch_bounds__(kBlockThreads)
    cast_to_f32(const Bf16* x, float* y, std::size_t n, bool vector) {
  CastBody<Bf16, float> body{x, y};
  stream_over(n, vector, body);
}

// x[i] = start + factor * v, v the number at position first + i of the stream. A thread draws pairs; one that the
// first or last position cuts is written in part.
struct RandomNumbers {
  std::uint64_t seed, purpose, first;
  double start, factor;
};

template <class S, class DrawPair>
__device__ inline void random_fill(S* x, std::size_t n, const RandomNumbers& r, const DrawPair& draw_pair) {
  const std::uint64_t last = r.first + n;
  const std::uint64_t end = last / 2 + last % 2;
  const std::uint64_t threads = std::uint64_t{gridDim.x} * blockDim.x;
  for (std::uint64_t pair = r.first / 2 + std::uint64_t{blockIdx.x} * blockDim.x + threadIdx.x; pair < end;
       pair += threads) {
    const philox::Pair v = draw_pair(r.seed, r.purpose, pair);
    if (2 * pair >= r.first) x[2 * pair - r.first] = narrow<S>(static_cast<float>(r.start + r.factor * v.first));
    if (2 * pair + 1 < last) x[2 * pair + 1 - r.first] = narrow<S>(static_cast<float>(r.start + r.factor * v.second));
  }
}

#define GRADFLOW_BATCH_KERNELS(S, s)                                                                        \
  extern "C" __global__ void __launch_bounds__(kBlockThreads)                                               \
      gather_batch_##s(GatherFrom from, S* x, std::int32_t* y) {                                            \
    gather_batch(from, x, y);                                                                               \
  }                                                                                                         \
  extern "C" __global__ void __launch_bounds__(kBlockThreads)                                               \
      gather_crop_##s(GatherFrom from, const std::int8_t* crops, unsigned height, unsigned width,           \
                      unsigned channels, S* x, std::int32_t* y) {                                           \
    gather_crop(from, crops, height, width, channels, x, y);                                                \
  }                                                                                                         \
  extern "C" __global__ void __launch_bounds__(kBlockThreads)                                               \
      fill_##s(S* x, std::size_t n, bool vector, float value) {                                             \
    FillBody<S> body{x, value};                                                                             \
    stream_over(n, vector, body);                                                                           \
  }                                                                                                         \
  extern "C" __global__ void __launch_bounds__(kBlockThreads)                                               \
      random_uniform_##s(S* x, std::size_t n, RandomNumbers r) {                                            \
    random_fill(x, n, r, [](std::uint64_t seed, std::uint64_t purpose, std::uint64_t pair) {                \
      return philox::uniform_pair(seed, purpose, pair);                                                     \
    });                                                                                                     \
  }                                                                                                         \
  extern "C" __global__ void __launch_bounds__(kBlockThreads)                                               \
      random_normal_##s(S* x, std::size_t n, RandomNumbers r) {                                             \
    random_fill(x, n, r, [](std::uint64_t seed, std::uint64_t purpose, std::uint64_t pair) {                \
      return philox::normal_pair(seed, purpose, pair);                                                      \
    });                                                                                                     \
  }

GRADFLOW_BATCH_KERNELS(float, f32)
GRADFLOW_BATCH_KERNELS(Bf16, bf16)

#undef GRADFLOW_BATCH_KERNELS

}  // namespace gradflow::kernels::cuda
