// Batch normalization over the last dimension of x[rows, channels], with what may follow it: an activation,
// or a residual addition and an activation.
//
// Forward in training: batch_norm_moments_f32, batch_norm_apply_f32 (12 bytes an
// element, 4 more with a skip); in evaluation the last alone. Backward: batch_norm_backward_sums_f32, then
// batch_norm_backward_apply_f32 (20 bytes an element, 8 more with an activation, 4 or 8 with a skip). The
// same in bf16 with half of the bytes: x, y, the skip and their gradients are bf16, all else is f32. What a
// separate launch would store between the parts of a fused pass is rounded as it would round it.
//
// Kernels named *_packs_* read and write 16 bytes at a time, of bf16 8: a thread keeps four neighboring
// channels (the f64 sums of eight would not fit in its registers). They need channels in multiples of four
// and aligned pointers; the others take anything. *_stats_* measure what they read, write, and have in between.
#pragma once

#include "gradflow/kernels/backend.h"
#include "kernels/cuda/columns.cuh"
#include "kernels/cuda/measured.cuh"
#include "kernels/cuda/output_op.cuh"
#include "kernels/cuda/stream.cuh"

namespace gradflow::kernels::cuda {

inline constexpr int kChannelPack = 4;
inline constexpr unsigned kPackTileColumns = kReduceTileColumns / kChannelPack;  // packs of a tile

struct RunningStatistics {
  float* mean;  // null: none are kept
  float* variance;
  double momentum;
};

// What follows the normalization; op is uniform over the launch, so its branch costs nothing beside memory.
template <class S>
struct BatchNormTail {
  PointwiseId op;
  const S* skip;       // null: no addition
  const Gates* gates;  // with skip
  double branch_scale;
};

template <class S>
struct BatchNormTailBackward {
  PointwiseId op;
  const S* y;          // null for identity
  const Gates* gates;  // null: no addition
  double branch_scale;
  S* dskip;
  GradMode skip_mode;
};

// In the order in which data comes to them.
struct BatchNormSinks {
  Sinks of[4];

  __device__ Measured<4, InPlane> measured() const { return {{of[0], of[1], of[2], of[3]}, {}, {}}; }
};

__device__ inline float average_into(float old, double value, double momentum) {
  return static_cast<float>(fma(momentum, value, (1.0 - momentum) * static_cast<double>(old)));
}

// Sums of W neighboring columns: sum s of column w is at of[s * W + w].
//
// One pass, of d = x - center with center the channel's first number: mean = center + mean(d), and the variance is that
// of d. As the center is one of the numbers, mean(d)^2 is at most rows times the variance, so what cancels leaves f64
// more digits than f32 has for any matrix that fits in memory, however far from zero the mean is (Chan, Golub, LeVeque,
// "Algorithms for computing the sample variance", 1983, on shifted data). `mean` is rounded to f32, and mean_low is what
// that left over.
template <int W, class S>
__device__ inline void batch_norm_moments(const S* x, float* mean, float* mean_low, float* inv_std, std::size_t rows,
                                          std::size_t channels, double epsilon, const RunningStatistics& running,
                                          const ReductionScratch& scratch) {
  reduce_columns<2 * W, kReduceTileColumns / W>(
      rows, channels / W, scratch,
      [=](std::size_t row, std::size_t pack, ColumnSums<2 * W>& sums) {
        const Pack<W> v = load_pack<W>(x + row * channels + W * pack);
        const Pack<W> center = load_pack<W>(x + W * pack);
#pragma unroll
        for (int w = 0; w < W; ++w) {
          const double d = static_cast<double>(v.v[w]) - static_cast<double>(center.v[w]);
          sums.of[w] += d;
          sums.of[W + w] = fma(d, d, sums.of[W + w]);
        }
      },
      [=](std::size_t pack, const ColumnSums<2 * W>& sums) {
        const auto n = static_cast<double>(rows);
        const Pack<W> center = load_pack<W>(x + W * pack);
#pragma unroll
        for (int w = 0; w < W; ++w) {
          const std::size_t channel = W * pack + w;
          const double shift = sums.of[w] / n;
          const double batch_mean = static_cast<double>(center.v[w]) + shift;
          double squares = sums.of[W + w] - sums.of[w] * shift;
          if (squares < 0.0) squares = 0.0;  // rounding; NaN stays
          const auto rounded = static_cast<float>(batch_mean);
          mean[channel] = rounded;
          mean_low[channel] = static_cast<float>(batch_mean - static_cast<double>(rounded));
          inv_std[channel] = static_cast<float>(1.0 / sqrt(squares / n + epsilon));
          if (running.mean != nullptr) {
            running.mean[channel] = average_into(running.mean[channel], batch_mean, running.momentum);
          }
          if (running.variance != nullptr) {
            const double unbiased = squares / (rows > 1 ? n - 1.0 : 1.0);
            running.variance[channel] = average_into(running.variance[channel], unbiased, running.momentum);
          }
        }
      });
}

template <int W>
struct ChannelScale {
  Pack<W> mean, mean_low, factor, shift;
};

// n = ((x - mean) - mean_low) * (inv_std * scale) + shift, so a mean far from 0 costs no digits. Measured: x, n, what
// stands in front of op, and y.
template <class S, int W, int kMeasured>
struct BatchNormApplyBody {
  const S* x;  // of this thread's first channel, row 0
  const S* skip;
  S* y;
  std::size_t channels;
  OutputOp op;
  float skip_factor, branch_factor;
  ChannelScale<W> s;
  Measured<kMeasured, InPlane>& measured;

  struct Loaded {
    Pack<W> x, skip;
  };
  __device__ Loaded load(std::size_t row) const {
    Loaded in;
    in.x = load_pack<W>(x + row * channels);
    if (skip != nullptr) in.skip = load_pack<W>(skip + row * channels);
    return in;
  }

  __device__ void store(std::size_t row, const Loaded& in) {
    Pack<W> normalized, sum, out;
    measured.add(0, in.x);
#pragma unroll
    for (int w = 0; w < W; ++w) {
      float n = fmaf((in.x.v[w] - s.mean.v[w]) - s.mean_low.v[w], s.factor.v[w], s.shift.v[w]);
      normalized.v[w] = as_stored<S>(n);
      if (skip != nullptr) n = fmaf(skip_factor, in.skip.v[w], branch_factor * as_stored<S>(n));
      sum.v[w] = as_stored<S>(n);
    }
    with_op(op, [&]<class One>(const One&) {
#pragma unroll
      for (int w = 0; w < W; ++w) out.v[w] = One::template forward<Math>(sum.v[w]);
    });
    store_pack(y + row * channels, out);
    if constexpr (kMeasured > 0) {
      measured.add(1, normalized);
      measured.add(2, sum);
      measured.add(3, as_stored<S>(out), op);
    }
  }
};

// Null mean_low is 0; without inv_std it follows from `variance`.
template <int W, class S, int kMeasured>
__device__ inline void batch_norm_apply(const S* x, S* y, const float* scale, const float* shift,
                                        const float* mean, const float* mean_low, const float* inv_std,
                                        const float* variance, double epsilon, std::size_t rows,
                                        std::size_t channels, const BatchNormTail<S>& tail,
                                        Measured<kMeasured, InPlane> measured, const ReductionScratch& for_sinks) {
  measured.begin();
  const bool adds = tail.skip != nullptr;
  const std::size_t first = W * (std::size_t{blockIdx.x} * blockDim.x + threadIdx.x);
  if (first < channels) {
    ChannelScale<W> s;
#pragma unroll
    for (int w = 0; w < W; ++w) {
      const std::size_t c = first + w;
      const float inverse =
          inv_std != nullptr ? inv_std[c]
                             : static_cast<float>(1.0 / sqrt(static_cast<double>(variance[c]) + epsilon));
      s.mean.v[w] = mean[c];
      s.mean_low.v[w] = mean_low != nullptr ? mean_low[c] : 0.0f;
      s.factor.v[w] = scale != nullptr ? inverse * scale[c] : inverse;
      s.shift.v[w] = shift != nullptr ? shift[c] : 0.0f;
    }
    BatchNormApplyBody<S, W, kMeasured> body{
        x + first,
        adds ? tail.skip + first : nullptr,
        y + first,
        channels,
        OutputOp{tail.op},
        adds ? tail.gates->forward_skip : 1.0f,
        adds ? static_cast<float>(static_cast<double>(tail.gates->forward_branch) * tail.branch_scale) : 1.0f,
        s,
        measured};
    walk_rows<kMeasured == 0 ? 3 : 1>(rows, body);
  }
  measured.finish(rows * channels, for_sinks);
}

// With g the gradient at the normalized output: dshift = sum g, dscale = sum g * xhat with
// xhat = (x - mean) * inv_std. `means` receives both times `share`, one over the number of rows: [2,
// channels].
template <int W, class S>
__device__ inline void batch_norm_backward_sums(const S* x, const S* dy, const float* mean,
                                                const float* inv_std, float* dscale, float* dshift,
                                                bool accumulate, float* means, double share, std::size_t rows,
                                                std::size_t channels, const BatchNormTailBackward<S>& tail,
                                                const ReductionScratch& scratch) {
  const float branch_factor =
      tail.gates != nullptr
          ? static_cast<float>(static_cast<double>(tail.gates->backward_branch) * tail.branch_scale)
          : 1.0f;
  const OutputOp op{tail.op};
  reduce_columns<2 * W, kReduceTileColumns / W>(
      rows, channels / W, scratch,
      [=](std::size_t row, std::size_t pack, ColumnSums<2 * W>& sums) {
        const std::size_t i = row * channels + W * pack;
        const Pack<W> v = load_pack<W>(x + i);
        Pack<W> g = load_pack<W>(dy + i);
        if (tail.y != nullptr) {
          const Pack<W> out = load_pack<W>(tail.y + i);
          with_op(op, [&]<class One>(const One&) {
#pragma unroll
            for (int w = 0; w < W; ++w) g.v[w] = as_stored<S>(One::template backward<Math>(out.v[w], g.v[w]));
          });
        }
#pragma unroll
        for (int w = 0; w < W; ++w) {
          const float d = tail.gates != nullptr ? as_stored<S>(branch_factor * g.v[w]) : g.v[w];
          const float xhat = (v.v[w] - mean[W * pack + w]) * inv_std[W * pack + w];
          sums.of[w] += static_cast<double>(d);
          sums.of[W + w] = fma(static_cast<double>(d), static_cast<double>(xhat), sums.of[W + w]);
        }
      },
      [=](std::size_t pack, const ColumnSums<2 * W>& sums) {
#pragma unroll
        for (int w = 0; w < W; ++w) {
          const std::size_t channel = W * pack + w;
          means[channel] = static_cast<float>(sums.of[w] * share);
          means[channels + channel] = static_cast<float>(sums.of[W + w] * share);
          const auto write = [=](float* to, double total) {
            if (to == nullptr) return;
            to[channel] = static_cast<float>(accumulate ? static_cast<double>(to[channel]) + total : total);
          };
          write(dshift, sums.of[w]);
          write(dscale, sums.of[W + w]);
        }
      });
}

template <int W>
struct ChannelGradient {
  Pack<W> mean, inv_std, factor, mean_g, mean_g_xhat;
};

// dx (=|+=) scale * inv_std * (g - mean(g) - xhat * mean(g * xhat)), and dskip beside it. Measured: dy, the gradient
// behind op, that at the normalized output, and dx.
template <int W, class S, int kMeasured>
__device__ inline void batch_norm_backward_apply(const S* x, const S* dy, const float* scale,
                                                 const float* mean, const float* inv_std, const float* means,
                                                 S* dx, GradMode mode, std::size_t rows, std::size_t channels,
                                                 const BatchNormTailBackward<S>& tail,
                                                 Measured<kMeasured, InPlane> measured,
                                                 const ReductionScratch& for_sinks) {
  measured.begin();
  const bool adds = tail.gates != nullptr;
  const OutputOp op{tail.op};
  const float skip_factor = adds ? tail.gates->backward_skip : 1.0f;
  const float branch_factor =
      adds ? static_cast<float>(static_cast<double>(tail.gates->backward_branch) * tail.branch_scale) : 1.0f;
  walk_columns<kMeasured == 0 ? 4 : 1>(
      rows, channels / W,
      [=](std::size_t pack) {
        ChannelGradient<W> g;
#pragma unroll
        for (int w = 0; w < W; ++w) {
          const std::size_t c = W * pack + w;
          g.mean.v[w] = mean[c];
          g.inv_std.v[w] = inv_std[c];
          g.factor.v[w] = scale != nullptr ? inv_std[c] * scale[c] : inv_std[c];
          g.mean_g.v[w] = means[c];
          g.mean_g_xhat.v[w] = means[channels + c];
        }
        return g;
      },
      [=, &measured](std::size_t row, std::size_t pack, const ChannelGradient<W>& g) {
        const std::size_t i = row * channels + W * pack;
        const Pack<W> v = load_pack<W>(x + i);
        Pack<W> d = load_pack<W>(dy + i);
        measured.add(0, d);
        if (tail.y != nullptr) {
          const Pack<W> out = load_pack<W>(tail.y + i);
#pragma unroll
          for (int w = 0; w < W; ++w) {  // one branch for all of them spills
            with_op(op, [&]<class One>(const One&) {
              d.v[w] = as_stored<S>(One::template backward<Math>(out.v[w], d.v[w]));
            });
          }
        }
        if constexpr (kMeasured > 0) {
          Pack<W> at_n = d;
#pragma unroll
          for (int w = 0; w < W; ++w) at_n.v[w] = adds ? as_stored<S>(branch_factor * d.v[w]) : d.v[w];
          measured.add(1, d);
          measured.add(2, at_n);
        }
        if (adds && tail.skip_mode != GradMode::none) {
          Pack<W> s;
          if (tail.skip_mode == GradMode::accumulate) s = load_pack<W>(tail.dskip + i);
#pragma unroll
          for (int w = 0; w < W; ++w) {
            s.v[w] = tail.skip_mode == GradMode::accumulate ? fmaf(skip_factor, d.v[w], s.v[w])
                                                            : skip_factor * d.v[w];
          }
          store_pack(tail.dskip + i, s);
        }
        if (mode == GradMode::none) return;
        Pack<W> old;
        if (mode == GradMode::accumulate) old = load_pack<W>(dx + i);
#pragma unroll
        for (int w = 0; w < W; ++w) {
          const float at_n = adds ? as_stored<S>(branch_factor * d.v[w]) : d.v[w];
          const float xhat = (v.v[w] - g.mean.v[w]) * g.inv_std.v[w];
          const float value = g.factor.v[w] * fmaf(-xhat, g.mean_g_xhat.v[w], at_n - g.mean_g.v[w]);
          d.v[w] = mode == GradMode::accumulate ? old.v[w] + value : value;
        }
        store_pack(dx + i, d);
        if constexpr (kMeasured > 0) measured.add(3, as_stored<S>(d));
      });
  measured.finish(rows * channels, for_sinks);
}

#define GRADFLOW_BATCH_NORM_KERNELS(S, suffix, W)                                                          \
  extern "C" __global__ void __launch_bounds__(kBlockThreads) batch_norm_moments_##suffix(                 \
      const S* x, float* mean, float* mean_low, float* inv_std, std::size_t rows, std::size_t channels,    \
      double epsilon, RunningStatistics running, ReductionScratch scratch) {                               \
    batch_norm_moments<W>(x, mean, mean_low, inv_std, rows, channels, epsilon, running, scratch);          \
  }                                                                                                        \
  extern "C" __global__ void __launch_bounds__(kBlockThreads, 4) batch_norm_apply_##suffix(                \
      const S* x, S* y, const float* scale, const float* shift, const float* mean, const float* mean_low,  \
      const float* inv_std, const float* variance, double epsilon, std::size_t rows, std::size_t channels, \
      BatchNormTail<S> tail) {                                                                             \
    batch_norm_apply<W, S, 0>(x, y, scale, shift, mean, mean_low, inv_std, variance, epsilon, rows,        \
                              channels, tail, {}, {});                                                     \
  }                                                                                                        \
  extern "C" __global__ void __launch_bounds__(kBlockThreads) batch_norm_apply_stats_##suffix(             \
      const S* x, S* y, const float* scale, const float* shift, const float* mean, const float* mean_low,  \
      const float* inv_std, const float* variance, double epsilon, std::size_t rows, std::size_t channels, \
      BatchNormTail<S> tail, BatchNormSinks sinks, ReductionScratch for_sinks) {                           \
    batch_norm_apply<W, S, 4>(x, y, scale, shift, mean, mean_low, inv_std, variance, epsilon, rows,        \
                              channels, tail, sinks.measured(), for_sinks);                                \
  }                                                                                                        \
  extern "C" __global__ void __launch_bounds__(kBlockThreads) batch_norm_backward_sums_##suffix(           \
      const S* x, const S* dy, const float* mean, const float* inv_std, float* dscale, float* dshift,      \
      bool accumulate, float* means, double share, std::size_t rows, std::size_t channels,                 \
      BatchNormTailBackward<S> tail, ReductionScratch scratch) {                                           \
    batch_norm_backward_sums<W>(x, dy, mean, inv_std, dscale, dshift, accumulate, means, share, rows,      \
                                channels, tail, scratch);                                                  \
  }                                                                                                        \
  extern "C" __global__ void __launch_bounds__(kBlockThreads) batch_norm_backward_apply_##suffix(          \
      const S* x, const S* dy, const float* scale, const float* mean, const float* inv_std,                \
      const float* means, S* dx, GradMode mode, std::size_t rows, std::size_t channels,                    \
      BatchNormTailBackward<S> tail) {                                                                     \
    batch_norm_backward_apply<W, S, 0>(x, dy, scale, mean, inv_std, means, dx, mode, rows, channels, tail, \
                                       {}, {});                                                            \
  }                                                                                                        \
  extern "C" __global__ void __launch_bounds__(kBlockThreads) batch_norm_backward_apply_stats_##suffix(    \
      const S* x, const S* dy, const float* scale, const float* mean, const float* inv_std,                \
      const float* means, S* dx, GradMode mode, std::size_t rows, std::size_t channels,                    \
      BatchNormTailBackward<S> tail, BatchNormSinks sinks, ReductionScratch for_sinks) {                   \
    batch_norm_backward_apply<W, S, 4>(x, dy, scale, mean, inv_std, means, dx, mode, rows, channels, tail, \
                                       sinks.measured(), for_sinks);                                       \
  }

GRADFLOW_BATCH_NORM_KERNELS(float, f32, 1)
GRADFLOW_BATCH_NORM_KERNELS(float, packs_f32, kChannelPack)
GRADFLOW_BATCH_NORM_KERNELS(Bf16, bf16, 1)
GRADFLOW_BATCH_NORM_KERNELS(Bf16, packs_bf16, kChannelPack)
#undef GRADFLOW_BATCH_NORM_KERNELS

}  // namespace gradflow::kernels::cuda
