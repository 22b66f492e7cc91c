// Pooling and the parameter-free shortcut. A thread has one place of an image and takes it in image after
// image: of y forward, of x backward, where it gathers from the windows that cover it. So no two threads
// write one place, no atomics are needed, and the place is computed once. Channels come last: a thread takes
// a pack of W neighboring ones where channels are a whole number of packs and aligned, else one; that changes
// no bit. Loads in flight: of a window forward two or four places, else those of several images. Images have
// fewer than 2^31 elements, see require_small_image(). Of f32 or bf16 (S); sums are f32, averages f64, and
// rounded once.
#pragma once

#include <cstdint>

#include "kernels/cuda/columns.cuh"
#include "kernels/cuda/simt.h"
#include "kernels/cuda/storage.cuh"

namespace gradflow::kernels::cuda {

// PoolWindow in 32 bits, with the extents of the output.
struct PoolPlan {
  int height, width, channels, out_height, out_width;
  int kernel_h, kernel_w, stride_h, stride_w, pad_h, pad_w;
};
struct ShortcutPlan {
  int height, width, channels, out_height, out_width, outputs, stride;
};

struct PlaceRange {  // [begin, end), empty if end <= begin
  int begin, end;
};
// Rows (or columns) of the image that window p covers.
__device__ inline PlaceRange covered(int p, int stride, int pad, int kernel, int extent) {
  const int first = p * stride - pad, last = first + kernel;
  return {first < 0 ? 0 : first, last > extent ? extent : last};
}
// Windows that cover row (or column) i of the image.
__device__ inline PlaceRange covering(int i, int stride, int pad, int kernel, int outputs) {
  const int from = i + pad - kernel + 1, end = (i + pad) / stride + 1;
  return {from <= 0 ? 0 : (from + stride - 1) / stride, end > outputs ? outputs : end};
}

// A place and the rows and columns on the other side that belong to it.
struct PoolPlace {
  int at, channel;  // row * width + column; the first of the pack
  PlaceRange rows, columns;
};
__device__ inline PoolPlace output_place(std::size_t i, const PoolPlan& p) {
  const int channel = static_cast<int>(i) % p.channels, at = static_cast<int>(i) / p.channels;
  return {at, channel, covered(at / p.out_width, p.stride_h, p.pad_h, p.kernel_h, p.height),
          covered(at % p.out_width, p.stride_w, p.pad_w, p.kernel_w, p.width)};
}
__device__ inline PoolPlace input_place(std::size_t i, const PoolPlan& p) {
  const int channel = static_cast<int>(i) % p.channels, at = static_cast<int>(i) / p.channels;
  return {at, channel, covering(at / p.width, p.stride_h, p.pad_h, p.kernel_h, p.out_height),
          covering(at % p.width, p.stride_w, p.pad_w, p.kernel_w, p.out_width)};
}
__device__ inline std::size_t inputs_of(const PoolPlan& p) {
  return static_cast<std::size_t>(p.height * p.width * p.channels);
}
__device__ inline std::size_t outputs_of(const PoolPlan& p) {
  return static_cast<std::size_t>(p.out_height * p.out_width * p.channels);
}

// at(i, place, b, step) for this thread's place, whose first element is number i of an image, and its images
// b, b + step,
// ... of `batch`: kImages of them at a time. Of the last group some may not be there.
template <int W, int kImages, class Prepare, class At>
__device__ inline void walk_places(std::size_t batch, std::size_t elements, const Prepare& prepare,
                                   const At& at) {
  const std::size_t i = W * (std::size_t{blockIdx.x} * blockDim.x + threadIdx.x);
  if (i >= elements) return;
  const auto place = prepare(i);
  const std::size_t step = std::size_t{gridDim.y} * blockDim.y;
#pragma unroll 1
  for (std::size_t b = std::size_t{blockIdx.y} * blockDim.y + threadIdx.y; b < batch; b += kImages * step) {
    at(i, place, b, step);
  }
}

// take(at, pack) for the places of a window, row by row, some of which are loaded first. No window is empty.
template <int W, class S, class Take>
__device__ inline void walk_window(const S* image, const PoolPlace& place, const PoolPlan& p,
                                   const Take& take) {
  constexpr int kPlaces = kPacksHeld<W>;
  int row = place.rows.begin, column = place.columns.begin;
#pragma unroll 1
  while (row < place.rows.end) {
    int at[kPlaces];
    Pack<W> in[kPlaces];
#pragma unroll
    for (int u = 0; u < kPlaces; ++u) {
      at[u] = row < place.rows.end ? row * p.width + column : -1;
      if (at[u] >= 0) in[u] = load_pack<W>(image + at[u] * p.channels);
      if (++column == place.columns.end) column = place.columns.begin, ++row;
    }
#pragma unroll
    for (int u = 0; u < kPlaces; ++u) {
      if (at[u] >= 0) take(at[u], in[u]);
    }
  }
}

// to (=|+=) value in images b, b + step, ...; `to` is the place in image 0.
template <int W, int N, class S>
__device__ inline void put_images(S* to, std::size_t image, bool accumulate, std::size_t batch, std::size_t b,
                                  std::size_t step, Pack<W> (&value)[N]) {
  if (accumulate) {
    Pack<W> old[N];
#pragma unroll
    for (int u = 0; u < N; ++u) {
      if (b + u * step < batch) old[u] = load_pack<W>(to + (b + u * step) * image);
    }
#pragma unroll
    for (int u = 0; u < N; ++u) {
      if (b + u * step >= batch) break;
#pragma unroll
      for (int k = 0; k < W; ++k) value[u].v[k] = old[u].v[k] + value[u].v[k];
    }
  }
#pragma unroll
  for (int u = 0; u < N; ++u) {
    if (b + u * step < batch) store_pack(to + (b + u * step) * image, value[u]);
  }
}

template <int W, class S>
__device__ inline void pool_max_all(const S* x, S* y, std::int32_t* winners, const PoolPlan& p,
                                    std::size_t batch) {
  const std::size_t inputs = inputs_of(p), outputs = outputs_of(p);
  walk_places<W, 1>(
      batch, outputs, [&](std::size_t i) { return output_place(i, p); },
      [&](std::size_t i, const PoolPlace& place, std::size_t b, std::size_t) {
        Pack<W> best;
        IntPack<W> winner;
#pragma unroll
        for (int k = 0; k < W; ++k) {
          best.v[k] = __uint_as_float(0xff800000u);  // -infinity, should there be nothing larger
          winner.v[k] = place.rows.begin * p.width + place.columns.begin;
        }
        walk_window<W>(x + b * inputs + place.channel, place, p, [&](int at, const Pack<W>& v) {
#pragma unroll
          for (int k = 0; k < W; ++k) {
            if (v.v[k] > best.v[k] || v.v[k] != v.v[k]) {
              best.v[k] = v.v[k];
              winner.v[k] = at;
            }
          }
        });
        store_pack(y + b * outputs + i, best);
        if (winners != nullptr) store_ints(winners + b * outputs + i, winner);
      });
}

template <int W, class S>
__device__ inline void pool_max_gradient(const std::int32_t* winners, const S* dy, S* dx, bool accumulate,
                                         const PoolPlan& p, std::size_t batch) {
  constexpr int N = W > 4 ? 1 : W > 1 ? 2 : 4;  // each with its winners
  const std::size_t inputs = inputs_of(p), outputs = outputs_of(p);
  walk_places<W, N>(
      batch, inputs, [&](std::size_t i) { return input_place(i, p); },
      [&](std::size_t i, const PoolPlace& place, std::size_t b, std::size_t step) {
        Pack<W> sum[N] = {};
        for (int r = place.rows.begin; r < place.rows.end; ++r) {
#pragma unroll 1
          for (int c = place.columns.begin; c < place.columns.end; ++c) {
            const auto from = static_cast<std::size_t>((r * p.out_width + c) * p.channels + place.channel);
            IntPack<W> winner[N];
            Pack<W> d[N];
#pragma unroll
            for (int u = 0; u < N; ++u) {
              if (b + u * step >= batch) break;
              winner[u] = load_ints<W>(winners + (b + u * step) * outputs + from);
              d[u] = load_pack<W>(dy + (b + u * step) * outputs + from);
            }
#pragma unroll
            for (int u = 0; u < N; ++u) {
              if (b + u * step >= batch) break;
#pragma unroll
              for (int k = 0; k < W; ++k) {
                if (winner[u].v[k] == place.at) sum[u].v[k] += d[u].v[k];
              }
            }
          }
        }
        put_images(dx + i, inputs, accumulate, batch, b, step, sum);
      });
}

// share: one over the number of elements of a window.
template <int W, class S>
__device__ inline void pool_average_all(const S* x, S* y, double share, const PoolPlan& p,
                                        std::size_t batch) {
  const std::size_t inputs = inputs_of(p), outputs = outputs_of(p);
  walk_places<W, 1>(
      batch, outputs, [&](std::size_t i) { return output_place(i, p); },
      [&](std::size_t i, const PoolPlace& place, std::size_t b, std::size_t) {
        double sum[W] = {};
        walk_window<W>(x + b * inputs + place.channel, place, p, [&](int, const Pack<W>& v) {
#pragma unroll
          for (int k = 0; k < W; ++k) sum[k] += static_cast<double>(v.v[k]);
        });
        Pack<W> out;
#pragma unroll
        for (int k = 0; k < W; ++k) out.v[k] = static_cast<float>(sum[k] * share);
        store_pack(y + b * outputs + i, out);
      });
}

template <int W, class S>
__device__ inline void pool_average_gradient(const S* dy, S* dx, bool accumulate, float share,
                                             const PoolPlan& p, std::size_t batch) {
  constexpr int N = W > 1 ? 2 : 4;
  const std::size_t inputs = inputs_of(p), outputs = outputs_of(p);
  walk_places<W, N>(
      batch, inputs, [&](std::size_t i) { return input_place(i, p); },
      [&](std::size_t i, const PoolPlace& place, std::size_t b, std::size_t step) {
        Pack<W> sum[N] = {};
        for (int r = place.rows.begin; r < place.rows.end; ++r) {
#pragma unroll 1
          for (int c = place.columns.begin; c < place.columns.end; ++c) {
            const auto from = static_cast<std::size_t>((r * p.out_width + c) * p.channels + place.channel);
            Pack<W> d[N];
#pragma unroll
            for (int u = 0; u < N; ++u) {
              if (b + u * step < batch) d[u] = load_pack<W>(dy + (b + u * step) * outputs + from);
            }
#pragma unroll
            for (int u = 0; u < N; ++u) {
              if (b + u * step >= batch) break;
#pragma unroll
              for (int k = 0; k < W; ++k) sum[u].v[k] += share * d[u].v[k];
            }
          }
        }
        put_images(dx + i, inputs, accumulate, batch, b, step, sum);
      });
}

// The places `from` of this thread's images: zeros if there is none (-1), or no image.
template <int W, int N, class S>
__device__ inline void load_images(const S* x, int from, std::size_t image, std::size_t batch, std::size_t b,
                                   std::size_t step, Pack<W> (&in)[N]) {
#pragma unroll
  for (int u = 0; u < N; ++u) {
    in[u] = {};
    if (from >= 0 && b + u * step < batch)
      in[u] = load_pack<W>(x + (b + u * step) * image + static_cast<std::size_t>(from));
  }
}

template <int W, class S>
__device__ inline void shortcut_all(const S* x, S* y, const ShortcutPlan& s, std::size_t batch) {
  constexpr int N = kPacksHeld<W>;
  const auto inputs = static_cast<std::size_t>(s.height * s.width * s.channels);
  const auto outputs = static_cast<std::size_t>(s.out_height * s.out_width * s.outputs);
  walk_places<W, N>(
      batch, outputs,
      [&](std::size_t i) {
        const int channel = static_cast<int>(i) % s.outputs, at = static_cast<int>(i) / s.outputs;
        const int pixel = at / s.out_width * s.stride * s.width + at % s.out_width * s.stride;
        return channel < s.channels ? pixel * s.channels + channel : -1;
      },
      [&](std::size_t i, int from, std::size_t b, std::size_t step) {
        Pack<W> in[N];
        load_images(x, from, inputs, batch, b, step, in);
        put_images(y + i, outputs, false, batch, b, step, in);
      });
}

template <int W, class S>
__device__ inline void shortcut_gradient(const S* dy, S* dx, bool accumulate, const ShortcutPlan& s,
                                         std::size_t batch) {
  constexpr int N = kPacksHeld<W>;
  const auto inputs = static_cast<std::size_t>(s.height * s.width * s.channels);
  const auto outputs = static_cast<std::size_t>(s.out_height * s.out_width * s.outputs);
  walk_places<W, N>(
      batch, inputs,
      [&](std::size_t i) {
        const int channel = static_cast<int>(i) % s.channels, at = static_cast<int>(i) / s.channels;
        const int row = at / s.width, column = at % s.width;
        const bool taken = row % s.stride == 0 && column % s.stride == 0;
        const int pixel = row / s.stride * s.out_width + column / s.stride;
        return taken ? pixel * s.outputs + channel : -1;
      },
      [&](std::size_t i, int from, std::size_t b, std::size_t step) {
        Pack<W> in[N];
        load_images(dy, from, outputs, batch, b, step, in);
        put_images(dx + i, inputs, accumulate, batch, b, step, in);
      });
}

// `vector`: channels are a whole number of packs and every array starts at a multiple of 16 bytes.
#define GRADFLOW_EITHER_WIDTH(vector, S, call) \
  if (vector) {                                \
    constexpr int W = kPackOf<S>;              \
    call;                                      \
  } else {                                     \
    constexpr int W = 1;                       \
    call;                                      \
  }
#define GRADFLOW_POOLING_KERNELS(S, suffix)                                                           \
  extern "C" __global__ void __launch_bounds__(kBlockThreads) pool_max_all_##suffix(                  \
      const S* x, S* y, std::int32_t* winners, PoolPlan p, std::size_t batch, bool vector) {          \
    GRADFLOW_EITHER_WIDTH(vector, S, pool_max_all<W>(x, y, winners, p, batch))                        \
  }                                                                                                   \
  extern "C" __global__ void __launch_bounds__(kBlockThreads)                                         \
      pool_max_gradient_##suffix(const std::int32_t* winners, const S* dy, S* dx, bool accumulate,    \
                                 PoolPlan p, std::size_t batch, bool vector) {                        \
    GRADFLOW_EITHER_WIDTH(vector, S, pool_max_gradient<W>(winners, dy, dx, accumulate, p, batch))     \
  }                                                                                                   \
  extern "C" __global__ void __launch_bounds__(kBlockThreads) pool_average_all_##suffix(              \
      const S* x, S* y, double share, PoolPlan p, std::size_t batch, bool vector) {                   \
    GRADFLOW_EITHER_WIDTH(vector, S, pool_average_all<W>(x, y, share, p, batch))                      \
  }                                                                                                   \
  extern "C" __global__ void __launch_bounds__(kBlockThreads) pool_average_gradient_##suffix(         \
      const S* dy, S* dx, bool accumulate, float share, PoolPlan p, std::size_t batch, bool vector) { \
    GRADFLOW_EITHER_WIDTH(vector, S, pool_average_gradient<W>(dy, dx, accumulate, share, p, batch))   \
  }                                                                                                   \
  extern "C" __global__ void __launch_bounds__(kBlockThreads)                                         \
      shortcut_all_##suffix(const S* x, S* y, ShortcutPlan s, std::size_t batch, bool vector) {       \
    GRADFLOW_EITHER_WIDTH(vector, S, shortcut_all<W>(x, y, s, batch))                                 \
  }                                                                                                   \
  extern "C" __global__ void __launch_bounds__(kBlockThreads) shortcut_gradient_##suffix(             \
      const S* dy, S* dx, bool accumulate, ShortcutPlan s, std::size_t batch, bool vector) {          \
    GRADFLOW_EITHER_WIDTH(vector, S, shortcut_gradient<W>(dy, dx, accumulate, s, batch))              \
  }

GRADFLOW_POOLING_KERNELS(float, f32)
GRADFLOW_POOLING_KERNELS(Bf16, bf16)
#undef GRADFLOW_POOLING_KERNELS
#undef GRADFLOW_EITHER_WIDTH

}  // namespace gradflow::kernels::cuda
