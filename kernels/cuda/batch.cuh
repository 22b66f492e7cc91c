// A batch gathered from a data set that lies on the device, constant and random fills, casts.
#pragma once

#include <cstdint>

#include "gradflow/kernels/random.h"
#include "kernels/cuda/columns.cuh"
#include "kernels/cuda/stream.cuh"

namespace gradflow::kernels::cuda {

// pixel / 255, rounded as a division is, for all 256 of them (a test compares each): the quotient, then what it leaves over.
__device__ inline float fraction_of_255(std::uint8_t pixel) {
  constexpr float kInverse = 1.0f / 255.0f;
  const auto p = static_cast<float>(pixel);
  const float q = p * kInverse;
  return fmaf(fmaf(-255.0f, q, p), kInverse, q);
}

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
    return (fraction_of_255(pixel) - center) * inv_std;
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

// W bytes with one instruction, from an address that is a multiple of W.
template <int W>
struct Pixels {
  unsigned words[(W + 3) / 4];

  __device__ std::uint8_t at(int k) const { return static_cast<std::uint8_t>(words[k / 4] >> (8 * (k % 4))); }
};
template <int W>
__device__ inline Pixels<W> load_pixels(const std::uint8_t* p) {
  if constexpr (W == 1) {
    return {{*p}};
  } else if constexpr (W == 4) {
    return {{*reinterpret_cast<const unsigned*>(p)}};
  } else {
    static_assert(W == 8);
    const uint2 q = *reinterpret_cast<const uint2*>(p);
    return {{q.x, q.y}};
  }
}

// A thread has W neighboring features of some samples.
template <int W, class S>
struct GatherBody {
  const GatherFrom& from;
  std::size_t feature;  // the first
  S* x;                 // of that feature, sample 0
  Pack<W> center;

  __device__ Pixels<W> load(std::size_t b) const { return load_pixels<W>(from.image(b) + feature); }
  __device__ void store(std::size_t b, const Pixels<W>& pixels) const {
    Pack<W> out;
#pragma unroll
    for (int k = 0; k < W; ++k) out.v[k] = from.value(pixels.at(k), center.v[k]);
    store_pack(x + b * from.features, out);
  }
};

// x[b, f] = (images[indices[b], f] / 255 - mean) * inv_std; y[b] = labels[indices[b]].
// Moves 5 bytes an element, 3 in bf16.
template <int W, class S>
__device__ inline void gather_batch(const GatherFrom& from, S* x) {
  const std::size_t f = W * (std::size_t{blockIdx.x} * blockDim.x + threadIdx.x);
  if (f >= from.features) return;
  GatherBody<W, S> body{from, f, x + f, {}};
#pragma unroll
  for (int k = 0; k < W; ++k) body.center.v[k] = from.center(f + k);
  walk_rows<4>(from.batch, body);
}

// The same of shifted and mirrored images; a thread keeps the place (i, j, c) of its first feature in the
// output. What it reads is anywhere, so it reads single pixels.
template <int W, class S>
struct CropBody {
  struct Place {
    int i, j;
    unsigned c;
  };
  struct Loaded {
    std::uint8_t pixel[W];
    float center[W];
    unsigned inside;  // a bit for each
  };
  const GatherFrom& from;
  const std::int8_t* crops;
  int height, width;
  unsigned channels;
  S* x;  // of the thread's first feature, sample 0
  Place first;

  __device__ Loaded load(std::size_t b) const {
    const std::int8_t* crop = crops + 3 * b;
    const std::uint8_t* image = from.image(b);
    const int dy = crop[0], dx = crop[1];
    const bool mirrored = crop[2] != 0;
    Loaded in;
    in.inside = 0;
    Place at = first;
#pragma unroll
    for (int k = 0; k < W; ++k) {
      const int i = at.i + dy, j = (mirrored ? width - 1 - at.j : at.j) + dx;
      if (i >= 0 && i < height && j >= 0 && j < width) {
        const unsigned source =
            (static_cast<unsigned>(i) * static_cast<unsigned>(width) + static_cast<unsigned>(j)) * channels + at.c;
        in.inside |= 1u << k;
        in.pixel[k] = image[source];
        in.center[k] = from.center(source);
      }
      if (++at.c == channels) {
        at.c = 0;
        if (++at.j == width) at.j = 0, ++at.i;
      }
    }
    return in;
  }
  __device__ void store(std::size_t b, const Loaded& in) const {
    Pack<W> out;
#pragma unroll
    for (int k = 0; k < W; ++k) {
      out.v[k] = 0.0f;
      if (in.inside >> k & 1u) out.v[k] = from.value(in.pixel[k], in.center[k]);
    }
    store_pack(x + b * from.features, out);
  }
};

template <int W, class S>
__device__ inline void gather_crop(const GatherFrom& from, const std::int8_t* crops, unsigned height,
                                   unsigned width, unsigned channels, S* x) {
  const std::size_t f = W * (std::size_t{blockIdx.x} * blockDim.x + threadIdx.x);
  if (f >= from.features) return;
  const auto pixel = static_cast<unsigned>(f / channels);
  CropBody<W, S> body{from,
                      crops,
                      static_cast<int>(height),
                      static_cast<int>(width),
                      channels,
                      x + f,
                      {static_cast<int>(pixel / width), static_cast<int>(pixel % width),
                       static_cast<unsigned>(f % channels)}};
  walk_rows<(W > 1 ? 1 : 4)>(from.batch, body);  // a pack is several loads
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

// x[i] = start + factor * v, v the number at position first + i of the stream.
struct RandomNumbers {
  std::uint64_t seed, purpose, first;
  double start, factor;
};

// Numbers are drawn in pairs: packs begin with one (`first` is even); a single number leaves the other of its
// pair.
template <class S, class DrawPair>
struct RandomBody {
  static constexpr int kWidth = kPackOf<S>;
  S* x;
  const RandomNumbers& r;
  DrawPair draw_pair;

  template <int W>
  __device__ int load(std::size_t) const {
    return 0;
  }
  template <int W>
  __device__ void store(std::size_t i, int) const {
    const std::uint64_t at = r.first + i;
    Pack<W> out;
#pragma unroll
    for (int k = 0; k < W; k += 2) {
      const philox::Pair v = draw_pair(r.seed, r.purpose, (at + k) / 2);
      const auto first = static_cast<float>(r.start + r.factor * v.first);
      const auto second = static_cast<float>(r.start + r.factor * v.second);
      if constexpr (W == 1) {
        out.v[0] = at % 2 == 0 ? first : second;
      } else {
        out.v[k] = first, out.v[k + 1] = second;
      }
    }
    store_pack(x + i, out);
  }
};

template <class S, class DrawPair>
__device__ inline void random_fill(S* x, std::size_t n, bool vector, const RandomNumbers& r,
                                   DrawPair draw_pair) {
  RandomBody<S, DrawPair> body{x, r, draw_pair};
  stream_over<1>(n, vector, body);
}

// `vector`: features are a whole number of packs and x starts at a multiple of 16 bytes; for
// gather_batch images, too, at one of a pack of bytes; for random numbers `first` is even.
#define GRADFLOW_BATCH_KERNELS(S, s)                                                                 \
  extern "C" __global__ void __launch_bounds__(kBlockThreads)                                        \
      gather_batch_##s(GatherFrom from, S* x, std::int32_t* y, bool vector) {                        \
    if (vector) {                                                                                    \
      gather_batch<kPackOf<S>>(from, x);                                                             \
    } else {                                                                                         \
      gather_batch<1>(from, x);                                                                      \
    }                                                                                                \
    gather_labels(from, y);                                                                          \
  }                                                                                                  \
  extern "C" __global__ void __launch_bounds__(kBlockThreads)                                        \
      gather_crop_##s(GatherFrom from, const std::int8_t* crops, unsigned height, unsigned width,    \
                      unsigned channels, S* x, std::int32_t* y, bool vector) {                       \
    if (vector) {                                                                                    \
      gather_crop<kPackOf<S>>(from, crops, height, width, channels, x);                              \
    } else {                                                                                         \
      gather_crop<1>(from, crops, height, width, channels, x);                                       \
    }                                                                                                \
    gather_labels(from, y);                                                                          \
  }                                                                                                  \
  extern "C" __global__ void __launch_bounds__(kBlockThreads)                                        \
      fill_##s(S* x, std::size_t n, bool vector, float value) {                                      \
    FillBody<S> body{x, value};                                                                      \
    stream_over(n, vector, body);                                                                    \
  }                                                                                                  \
  extern "C" __global__ void __launch_bounds__(kBlockThreads)                                        \
      random_uniform_##s(S* x, std::size_t n, bool vector, RandomNumbers r) {                        \
    random_fill(x, n, vector, r, [](std::uint64_t seed, std::uint64_t purpose, std::uint64_t pair) { \
      return philox::uniform_pair(seed, purpose, pair);                                              \
    });                                                                                              \
  }                                                                                                  \
  extern "C" __global__ void __launch_bounds__(kBlockThreads)                                        \
      random_normal_##s(S* x, std::size_t n, bool vector, RandomNumbers r) {                         \
    random_fill(x, n, vector, r, [](std::uint64_t seed, std::uint64_t purpose, std::uint64_t pair) { \
      return philox::normal_pair(seed, purpose, pair);                                               \
    });                                                                                              \
  }

GRADFLOW_BATCH_KERNELS(float, f32)
GRADFLOW_BATCH_KERNELS(Bf16, bf16)

#undef GRADFLOW_BATCH_KERNELS

}  // namespace gradflow::kernels::cuda
