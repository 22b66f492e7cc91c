// Pooling of images. The rules of every call stand in kernels/backend.h.
#pragma once

#include <cstdint>

#include "gradflow/kernels/contract/convolution.h"
#include "gradflow/kernels/dtype.h"

namespace gradflow::kernels {

// Windows as in a convolution, per channel; x[batch, height, width, channels].
struct PoolWindow {
  std::int64_t batch = 0, height = 0, width = 0, channels = 0;
  std::int64_t kernel_h = 1, kernel_w = 1, stride_h = 1, stride_w = 1;
  std::int64_t pad_h = 0, pad_w = 0;  // at most half a window, so that no window lies in the padding alone

  constexpr std::int64_t out_height() const noexcept {
    return ConvolutionDesc::extent(height, pad_h, kernel_h, stride_h);
  }
  constexpr std::int64_t out_width() const noexcept {
    return ConvolutionDesc::extent(width, pad_w, kernel_w, stride_w);
  }
};

// y = the largest x of each window; padding never wins. As in PyTorch: of equal ones the first in row-major
// order wins; a NaN beats everything (the last one, if there are several).
struct MaxPoolForward {
  DType dtype = DType::f32;
  PoolWindow window;
  const void* x = nullptr;
  void* y = nullptr;
  std::int32_t* winners = nullptr;  // i * width + j of each output's winner, as y; null: not wanted
};

struct MaxPoolBackward {  // dx (=|+=) the sum of dy over the windows that x won
  DType dtype = DType::f32;
  PoolWindow window;
  const std::int32_t* winners = nullptr;
  const void* dy = nullptr;
  void* dx = nullptr;
  GradMode mode = GradMode::overwrite;
};

// y = sum over the window / (kernel_h * kernel_w): padding counts as zeros, PyTorch's default. With the
// window as large as the image and no padding this is global average pooling.
struct AveragePoolForward {
  DType dtype = DType::f32;
  PoolWindow window;
  const void* x = nullptr;
  void* y = nullptr;
};

struct AveragePoolBackward {
  DType dtype = DType::f32;
  PoolWindow window;
  const void* dy = nullptr;
  void* dx = nullptr;
  GradMode mode = GradMode::overwrite;
};

}  // namespace gradflow::kernels
