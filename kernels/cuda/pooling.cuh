// Pooling and the parameter-free shortcut. A thread has one place of an image and takes it in image after
// image: of y forward, of x backward, where it gathers from the windows that cover it. So no two threads
// write one place, no atomics are needed, and the place is computed once. Channels come last: neighboring
// threads read neighboring addresses. Images have fewer than 2^31 elements, see require_small_image(). Of f32
// or bf16 (S); sums are f32, averages f64, and rounded once.
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
  int at, channel;  // at: row * width + column
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

template <class S>
__device__ inline void put_gradient(S* to, bool accumulate, float value) {
  *to = narrow<S>(accumulate ? widen(*to) + value : value);
}

template <class S>
__device__ inline void pool_max_all(const S* x, S* y, std::int32_t* winners, PoolPlan p, std::size_t batch) {
  const std::size_t inputs = inputs_of(p), outputs = outputs_of(p);
  walk_columns(
      batch, outputs, [=](std::size_t i) { return output_place(i, p); },
      [=](std::size_t b, std::size_t i, const PoolPlace& place) {
        const S* image = x + b * inputs + place.channel;
        int winner = place.rows.begin * p.width + place.columns.begin;
        float best = widen(image[winner * p.channels]);
        for (int r = place.rows.begin; r < place.rows.end; ++r) {
          for (int c = place.columns.begin; c < place.columns.end; ++c) {
            const float v = widen(image[(r * p.width + c) * p.channels]);
            if (v > best || v != v) {
              best = v;
              winner = r * p.width + c;
            }
          }
        }
        y[b * outputs + i] = narrow<S>(best);
        if (winners != nullptr) winners[b * outputs + i] = winner;
      });
}

template <class S>
__device__ inline void pool_max_gradient(const std::int32_t* winners, const S* dy, S* dx, bool accumulate,
                                         PoolPlan p, std::size_t batch) {
  const std::size_t inputs = inputs_of(p), outputs = outputs_of(p);
  walk_columns(
      batch, inputs, [=](std::size_t i) { return input_place(i, p); },
      [=](std::size_t b, std::size_t i, const PoolPlace& place) {
        const std::size_t image = b * outputs + static_cast<std::size_t>(place.channel);
        float sum = 0.0f;
        for (int r = place.rows.begin; r < place.rows.end; ++r) {
          for (int c = place.columns.begin; c < place.columns.end; ++c) {
            const std::size_t from = image + static_cast<std::size_t>((r * p.out_width + c) * p.channels);
            if (winners[from] == place.at) sum += widen(dy[from]);
          }
        }
        put_gradient(dx + b * inputs + i, accumulate, sum);
      });
}

// share: one over the number of elements of a window.
template <class S>
__device__ inline void pool_average_all(const S* x, S* y, double share, PoolPlan p, std::size_t batch) {
  const std::size_t inputs = inputs_of(p), outputs = outputs_of(p);
  walk_columns(
      batch, outputs, [=](std::size_t i) { return output_place(i, p); },
      [=](std::size_t b, std::size_t i, const PoolPlace& place) {
        const S* image = x + b * inputs + place.channel;
        double sum = 0.0;
        for (int r = place.rows.begin; r < place.rows.end; ++r) {
          for (int c = place.columns.begin; c < place.columns.end; ++c) {
            sum += static_cast<double>(widen(image[(r * p.width + c) * p.channels]));
          }
        }
        y[b * outputs + i] = narrow<S>(static_cast<float>(sum * share));
      });
}

template <class S>
__device__ inline void pool_average_gradient(const S* dy, S* dx, bool accumulate, float share, PoolPlan p,
                                             std::size_t batch) {
  const std::size_t inputs = inputs_of(p), outputs = outputs_of(p);
  walk_columns(
      batch, inputs, [=](std::size_t i) { return input_place(i, p); },
      [=](std::size_t b, std::size_t i, const PoolPlace& place) {
        const S* image = dy + b * outputs + place.channel;
        float sum = 0.0f;
        for (int r = place.rows.begin; r < place.rows.end; ++r) {
          for (int c = place.columns.begin; c < place.columns.end; ++c) {
            sum += share * widen(image[(r * p.out_width + c) * p.channels]);
          }
        }
        put_gradient(dx + b * inputs + i, accumulate, sum);
      });
}

// Where in the other image a place has its partner; -1: nowhere.
template <class S>
__device__ inline void shortcut_all(const S* x, S* y, ShortcutPlan s, std::size_t batch) {
  const auto inputs = static_cast<std::size_t>(s.height * s.width * s.channels);
  const auto outputs = static_cast<std::size_t>(s.out_height * s.out_width * s.outputs);
  walk_columns(
      batch, outputs,
      [=](std::size_t i) {
        const int channel = static_cast<int>(i) % s.outputs, at = static_cast<int>(i) / s.outputs;
        const int pixel = at / s.out_width * s.stride * s.width + at % s.out_width * s.stride;
        return channel < s.channels ? pixel * s.channels + channel : -1;
      },
      [=](std::size_t b, std::size_t i, int from) {
        y[b * outputs + i] = from >= 0 ? x[b * inputs + static_cast<std::size_t>(from)] : narrow<S>(0.0f);
      });
}

template <class S>
__device__ inline void shortcut_gradient(const S* dy, S* dx, bool accumulate, ShortcutPlan s,
                                         std::size_t batch) {
  const auto inputs = static_cast<std::size_t>(s.height * s.width * s.channels);
  const auto outputs = static_cast<std::size_t>(s.out_height * s.out_width * s.outputs);
  walk_columns(
      batch, inputs,
      [=](std::size_t i) {
        const int channel = static_cast<int>(i) % s.channels, at = static_cast<int>(i) / s.channels;
        const int row = at / s.width, column = at % s.width;
        const bool taken = row % s.stride == 0 && column % s.stride == 0;
        const int pixel = row / s.stride * s.out_width + column / s.stride;
        return taken ? pixel * s.outputs + channel : -1;
      },
      [=](std::size_t b, std::size_t i, int from) {
        put_gradient(dx + b * inputs + i, accumulate,
                     from >= 0 ? widen(dy[b * outputs + static_cast<std::size_t>(from)]) : 0.0f);
      });
}

#define GRADFLOW_POOLING_KERNELS(S, suffix)                                                                \
  extern "C" __global__ void __launch_bounds__(kBlockThreads)                                              \
      pool_max_all_##suffix(const S* x, S* y, std::int32_t* winners, PoolPlan p, std::size_t batch) {      \
    pool_max_all(x, y, winners, p, batch);                                                                 \
  }                                                                                                        \
  extern "C" __global__ void __launch_bounds__(kBlockThreads) pool_max_gradient_##suffix(                  \
      const std::int32_t* winners, const S* dy, S* dx, bool accumulate, PoolPlan p, std::size_t batch) {   \
    pool_max_gradient(winners, dy, dx, accumulate, p, batch);                                              \
  }                                                                                                        \
  extern "C" __global__ void __launch_bounds__(kBlockThreads)                                              \
      pool_average_all_##suffix(const S* x, S* y, double share, PoolPlan p, std::size_t batch) {           \
    pool_average_all(x, y, share, p, batch);                                                               \
  }                                                                                                        \
  extern "C" __global__ void __launch_bounds__(kBlockThreads) pool_average_gradient_##suffix(              \
      const S* dy, S* dx, bool accumulate, float share, PoolPlan p, std::size_t batch) {                   \
    pool_average_gradient(dy, dx, accumulate, share, p, batch);                                            \
  }                                                                                                        \
  extern "C" __global__ void __launch_bounds__(kBlockThreads)                                              \
      shortcut_all_##suffix(const S* x, S* y, ShortcutPlan s, std::size_t batch) {                         \
    shortcut_all(x, y, s, batch);                                                                          \
  }                                                                                                        \
  extern "C" __global__ void __launch_bounds__(kBlockThreads)                                              \
      shortcut_gradient_##suffix(const S* dy, S* dx, bool accumulate, ShortcutPlan s, std::size_t batch) { \
    shortcut_gradient(dy, dx, accumulate, s, batch);                                                       \
  }

GRADFLOW_POOLING_KERNELS(float, f32)
GRADFLOW_POOLING_KERNELS(Bf16, bf16)
#undef GRADFLOW_POOLING_KERNELS

}  // namespace gradflow::kernels::cuda
