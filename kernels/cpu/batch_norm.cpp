// Batch normalization over the last dimension, forward and backward.
//
// One task owns a block of neighboring channels and walks all rows: sums in f64 and in row order, so the
// result does not depend on the thread count, and a block's two or three passes reuse the cache.
#include <cmath>

#include "functions.h"

namespace gradflow::kernels::cpu {
namespace {

constexpr std::size_t kBlock = 32;  // channels of one task: two cache lines of f32

template <class T>
struct Block {
  std::size_t first, width, rows, stride;
  const T* row(const void* x, std::size_t r) const { return static_cast<const T*>(x) + r * stride + first; }
  T* row(void* x, std::size_t r) const { return static_cast<T*>(x) + r * stride + first; }
};

template <class T>
T at(const void* p, std::size_t i, T otherwise) {
  return p ? static_cast<const T*>(p)[i] : otherwise;
}

template <class T>
void batch_moments(const Block<T>& b, const void* x, double* mean, double* variance) {
  const double count = static_cast<double>(b.rows);
  double sum[kBlock] = {}, squares[kBlock] = {};
  for (std::size_t r = 0; r < b.rows; ++r) {
    const T* xr = b.row(x, r);
    for (std::size_t c = 0; c < b.width; ++c) sum[c] += static_cast<double>(xr[c]);
  }
  for (std::size_t c = 0; c < b.width; ++c) mean[c] = sum[c] / count;
  for (std::size_t r = 0; r < b.rows; ++r) {
    const T* xr = b.row(x, r);
    for (std::size_t c = 0; c < b.width; ++c) {
      const double d = static_cast<double>(xr[c]) - mean[c];
      squares[c] += d * d;
    }
  }
  for (std::size_t c = 0; c < b.width; ++c) variance[c] = squares[c] / count;
}

template <class T>
void forward_block(const BatchNormForward& a, const Block<T>& b) {
  double mean[kBlock], variance[kBlock];
  T* running_mean = static_cast<T*>(a.running_mean);
  T* running_variance = static_cast<T*>(a.running_variance);
  if (a.training) {
    batch_moments(b, a.x, mean, variance);
  } else {
    for (std::size_t c = 0; c < b.width; ++c) {
      mean[c] = static_cast<double>(running_mean[b.first + c]);
      variance[c] = static_cast<double>(running_variance[b.first + c]);
    }
  }
  // x - mean is formed as (x - high) - low with mean = high + low, so a mean far from 0 costs no digits.
  T high[kBlock], low[kBlock], factor[kBlock], shift[kBlock];
  for (std::size_t c = 0; c < b.width; ++c) {
    const double inv_std = 1.0 / std::sqrt(variance[c] + a.epsilon);
    const std::size_t channel = b.first + c;
    high[c] = static_cast<T>(mean[c]);
    low[c] = static_cast<T>(mean[c] - static_cast<double>(high[c]));
    factor[c] = static_cast<T>(inv_std * static_cast<double>(at<T>(a.scale, channel, T(1))));
    shift[c] = at<T>(a.shift, channel, T(0));
    if (!a.training) continue;
    if (a.mean) static_cast<T*>(a.mean)[channel] = high[c];
    if (a.inv_std) static_cast<T*>(a.inv_std)[channel] = static_cast<T>(inv_std);
    const double rows = static_cast<double>(b.rows);
    const double unbiased = b.rows > 1 ? variance[c] * (rows / (rows - 1)) : variance[c];
    const auto blend = [&](T old, double now) {
      return static_cast<T>((1.0 - a.momentum) * static_cast<double>(old) + a.momentum * now);
    };
    if (running_mean) running_mean[channel] = blend(running_mean[channel], mean[c]);
    if (running_variance) running_variance[channel] = blend(running_variance[channel], unbiased);
  }
  for (std::size_t r = 0; r < b.rows; ++r) {
    const T* xr = b.row(a.x, r);
    T* yr = b.row(a.y, r);
#pragma GCC ivdep
    for (std::size_t c = 0; c < b.width; ++c) yr[c] = ((xr[c] - high[c]) - low[c]) * factor[c] + shift[c];
  }
}

// With xhat = (x - mean) * inv_std and N rows:
//   dshift = sum dy,  dscale = sum dy * xhat,  dx = scale * inv_std * (dy - dshift / N - xhat * dscale / N).
template <class T>
void backward_block(const BatchNormBackward& a, const Block<T>& b) {
  double mean[kBlock], inv_std[kBlock], sum_dy[kBlock] = {}, sum_dy_xhat[kBlock] = {};
  for (std::size_t c = 0; c < b.width; ++c) {
    mean[c] = static_cast<double>(static_cast<const T*>(a.mean)[b.first + c]);
    inv_std[c] = static_cast<double>(static_cast<const T*>(a.inv_std)[b.first + c]);
  }
  for (std::size_t r = 0; r < b.rows; ++r) {
    const T* xr = b.row(a.x, r);
    const T* dyr = b.row(a.dy, r);
    for (std::size_t c = 0; c < b.width; ++c) {
      const double dy = static_cast<double>(dyr[c]);
      sum_dy[c] += dy;
      sum_dy_xhat[c] += dy * ((static_cast<double>(xr[c]) - mean[c]) * inv_std[c]);
    }
  }
  const bool add_parameters = a.parameter_mode == GradMode::accumulate;
  const auto store = [&](void* to, std::size_t channel, double value) {
    if (!to || a.parameter_mode == GradMode::none) return;
    T& g = static_cast<T*>(to)[channel];
    g = static_cast<T>(add_parameters ? static_cast<double>(g) + value : value);
  };
  T center[kBlock], scale[kBlock], mean_dy[kBlock], slope[kBlock];
  const double rows = static_cast<double>(b.rows);
  for (std::size_t c = 0; c < b.width; ++c) {
    store(a.dshift, b.first + c, sum_dy[c]);
    store(a.dscale, b.first + c, sum_dy_xhat[c]);
    center[c] = static_cast<T>(mean[c]);
    scale[c] = static_cast<T>(static_cast<double>(at<T>(a.scale, b.first + c, T(1))) * inv_std[c]);
    mean_dy[c] = static_cast<T>(sum_dy[c] / rows);
    slope[c] = static_cast<T>(inv_std[c] * (sum_dy_xhat[c] / rows));
  }
  if (a.dx_mode == GradMode::none) return;
  const bool accumulate = a.dx_mode == GradMode::accumulate;
  for (std::size_t r = 0; r < b.rows; ++r) {
    const T* xr = b.row(a.x, r);
    const T* dyr = b.row(a.dy, r);
    T* dxr = b.row(a.dx, r);
    if (accumulate) {
#pragma GCC ivdep
      for (std::size_t c = 0; c < b.width; ++c)
        dxr[c] += scale[c] * ((dyr[c] - mean_dy[c]) - (xr[c] - center[c]) * slope[c]);
    } else {
#pragma GCC ivdep
      for (std::size_t c = 0; c < b.width; ++c)
        dxr[c] = scale[c] * ((dyr[c] - mean_dy[c]) - (xr[c] - center[c]) * slope[c]);
    }
  }
}

template <class T, class Body>
void for_each_block(const Context& context, std::size_t rows, std::size_t channels, const Body& body) {
  if (rows == 0) return;
  const std::size_t blocks = (channels + kBlock - 1) / kBlock;
  for_each_index(context, blocks, rows * channels >= kSerialExpensive, [&](std::size_t i) {
    const std::size_t first = i * kBlock;
    body(Block<T>{first, std::min(kBlock, channels - first), rows, channels});
  });
}

}  // namespace

void batch_norm_forward(const Context& context, const BatchNormForward& a) {
  visit_real(a.dtype, [&]<class T>() {
    for_each_block<T>(context, a.rows, a.channels, [&](const Block<T>& b) { forward_block<T>(a, b); });
  });
}

void batch_norm_backward(const Context& context, const BatchNormBackward& a) {
  visit_real(a.dtype, [&]<class T>() {
    for_each_block<T>(context, a.rows, a.channels, [&](const Block<T>& b) { backward_block<T>(a, b); });
  });
}

}  // namespace gradflow::kernels::cpu
