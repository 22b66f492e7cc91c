// Batch normalization over the last dimension of x[rows, channels].
//
// Forward in training: batch_norm_mean_f32, batch_norm_variance_f32, batch_norm_apply_f32 (16 bytes an
// element); in evaluation the last alone. Backward: batch_norm_backward_sums_f32, then
// batch_norm_backward_apply_f32 (20 bytes an element, 24 when it accumulates).
#pragma once

#include "kernels/cuda/columns.cuh"

namespace gradflow::kernels::cuda {

struct RunningStatistics {
  float* mean;  // null: none are kept
  float* variance;
  double momentum;
};

__device__ inline float average_into(float old, double value, double momentum) {
  return static_cast<float>(fma(momentum, value, (1.0 - momentum) * static_cast<double>(old)));
}

extern "C" __global__ void __launch_bounds__(kBlockThreads)
    batch_norm_mean_f32(const float* x, float* mean, std::size_t rows, std::size_t channels,
                        RunningStatistics running, ReductionScratch scratch) {
  reduce_columns<1>(
      rows, channels, scratch,
      [=](std::size_t row, std::size_t channel, ColumnSums<1>& sums) {
        sums.of[0] += x[row * channels + channel];
      },
      [=](std::size_t channel, const ColumnSums<1>& sums) {
        const double batch_mean = sums.of[0] / static_cast<double>(rows);
        mean[channel] = static_cast<float>(batch_mean);
        if (running.mean != nullptr) {
          running.mean[channel] = average_into(running.mean[channel], batch_mean, running.momentum);
        }
      });
}

// `mean` is the true mean rounded to f32. The mean of (x - mean) is what that rounding left over (mean_low),
// and its square is taken off the variance: the corrected two-pass algorithm (Chan, Golub, LeVeque,
// "Algorithms for computing the sample variance", 1983, eq. 1.7).
extern "C" __global__ void __launch_bounds__(kBlockThreads)
    batch_norm_variance_f32(const float* x, const float* mean, float* mean_low, float* inv_std,
                            std::size_t rows, std::size_t channels, double epsilon, RunningStatistics running,
                            ReductionScratch scratch) {
  reduce_columns<2>(
      rows, channels, scratch,
      [=](std::size_t row, std::size_t channel, ColumnSums<2>& sums) {
        const double d =
            static_cast<double>(x[row * channels + channel]) - static_cast<double>(mean[channel]);
        sums.of[0] += d;
        sums.of[1] = fma(d, d, sums.of[1]);
      },
      [=](std::size_t channel, const ColumnSums<2>& sums) {
        const auto n = static_cast<double>(rows);
        double squares = sums.of[1] - sums.of[0] * sums.of[0] / n;
        if (squares < 0.0) squares = 0.0;  // rounding; NaN stays
        mean_low[channel] = static_cast<float>(sums.of[0] / n);
        inv_std[channel] = static_cast<float>(1.0 / sqrt(squares / n + epsilon));
        if (running.variance != nullptr) {
          const double unbiased = squares / (rows > 1 ? n - 1.0 : 1.0);
          running.variance[channel] = average_into(running.variance[channel], unbiased, running.momentum);
        }
      });
}

struct ChannelScale {
  float mean, mean_low, factor, shift;
};

// y = ((x - mean) - mean_low) * (inv_std * scale) + shift, so a mean far from 0 costs no digits. Null
// mean_low is 0; without inv_std it follows from `variance`.
extern "C" __global__ void __launch_bounds__(kBlockThreads)
    batch_norm_apply_f32(const float* x, float* y, const float* scale, const float* shift, const float* mean,
                         const float* mean_low, const float* inv_std, const float* variance, double epsilon,
                         std::size_t rows, std::size_t channels) {
  walk_columns(
      rows, channels,
      [=](std::size_t c) {
        const float inverse =
            inv_std != nullptr ? inv_std[c]
                               : static_cast<float>(1.0 / sqrt(static_cast<double>(variance[c]) + epsilon));
        return ChannelScale{mean[c], mean_low != nullptr ? mean_low[c] : 0.0f,
                            scale != nullptr ? inverse * scale[c] : inverse,
                            shift != nullptr ? shift[c] : 0.0f};
      },
      [=](std::size_t row, std::size_t c, const ChannelScale& s) {
        const std::size_t i = row * channels + c;
        y[i] = fmaf((x[i] - s.mean) - s.mean_low, s.factor, s.shift);
      });
}

// dshift = sum dy, dscale = sum dy * xhat with xhat = (x - mean) * inv_std. `means` receives both divided
// by the number of rows: [2, channels].
extern "C" __global__ void __launch_bounds__(kBlockThreads)
    batch_norm_backward_sums_f32(const float* x, const float* dy, const float* mean, const float* inv_std,
                                 float* dscale, float* dshift, bool accumulate, float* means,
                                 std::size_t rows, std::size_t channels, ReductionScratch scratch) {
  reduce_columns<2>(
      rows, channels, scratch,
      [=](std::size_t row, std::size_t channel, ColumnSums<2>& sums) {
        const std::size_t i = row * channels + channel;
        const float xhat = (x[i] - mean[channel]) * inv_std[channel];
        sums.of[0] += dy[i];
        sums.of[1] = fma(static_cast<double>(dy[i]), static_cast<double>(xhat), sums.of[1]);
      },
      [=](std::size_t channel, const ColumnSums<2>& sums) {
        const auto n = static_cast<double>(rows);
        means[channel] = static_cast<float>(sums.of[0] / n);
        means[channels + channel] = static_cast<float>(sums.of[1] / n);
        const auto write = [=](float* to, double total) {
          if (to == nullptr) return;
          to[channel] = static_cast<float>(accumulate ? static_cast<double>(to[channel]) + total : total);
        };
        write(dshift, sums.of[0]);
        write(dscale, sums.of[1]);
      });
}

struct ChannelGradient {
  float mean, inv_std, factor, mean_dy, mean_dy_xhat;
};

// dx (=|+=) scale * inv_std * (dy - mean(dy) - xhat * mean(dy * xhat))
extern "C" __global__ void __launch_bounds__(kBlockThreads)
    batch_norm_backward_apply_f32(const float* x, const float* dy, const float* scale, const float* mean,
                                  const float* inv_std, const float* means, float* dx, bool accumulate,
                                  std::size_t rows, std::size_t channels) {
  walk_columns(
      rows, channels,
      [=](std::size_t c) {
        return ChannelGradient{mean[c], inv_std[c], scale != nullptr ? inv_std[c] * scale[c] : inv_std[c],
                               means[c], means[channels + c]};
      },
      [=](std::size_t row, std::size_t c, const ChannelGradient& g) {
        const std::size_t i = row * channels + c;
        const float xhat = (x[i] - g.mean) * g.inv_std;
        const float d = g.factor * fmaf(-xhat, g.mean_dy_xhat, dy[i] - g.mean_dy);
        dx[i] = accumulate ? dx[i] + d : d;
      });
}

}  // namespace gradflow::kernels::cuda
