// The shortcut of a residual network that has no parameters. The rules of every call stand in kernels/backend.h.
#pragma once

#include <cstdint>

#include "gradflow/kernels/dtype.h"

namespace gradflow::kernels {

// The parameter-free shortcut ("option A") of He et al. 2015: every stride-th pixel, new channels zero.
//   y[b, i, j, c] = c < channels ? x[b, i*stride, j*stride, c] : 0
// x[batch, height, width, channels], y[batch, ceil(height/stride), ceil(width/stride), outputs >= channels].
struct ShortcutShape {
  std::int64_t batch = 0, height = 0, width = 0, channels = 0, outputs = 0, stride = 1;
  constexpr std::int64_t out_height() const noexcept { return (height + stride - 1) / stride; }
  constexpr std::int64_t out_width() const noexcept { return (width + stride - 1) / stride; }
};

struct ShortcutForward {
  DType dtype = DType::f32;
  ShortcutShape shape;
  const void* x = nullptr;
  void* y = nullptr;
};

struct ShortcutBackward {  // dx (=|+=) dy where x was taken, 0 elsewhere
  DType dtype = DType::f32;
  ShortcutShape shape;
  const void* dy = nullptr;
  void* dx = nullptr;
  GradMode mode = GradMode::overwrite;
};

}  // namespace gradflow::kernels
