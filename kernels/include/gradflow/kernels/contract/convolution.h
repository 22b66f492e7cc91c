// Convolutions, prepared once and run often. The rules of every call stand in kernels/backend.h.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "gradflow/kernels/dtype.h"

namespace gradflow::kernels {

// Cross-correlation, as every framework's "convolution": with i = p*stride_h + r - pad_h and
// j = q*stride_w + s - pad_w, terms outside the image left out,
//   y[b,p,q,o] (+)= sum over r, s, c of x[b,i,j, g*C/G + c] * w[o,r,s,c]   (+ bias[o]),  g = o / (O/G).
// x[batch, height, width, channels C], y[batch, out_height(), out_width(), outputs O], groups G.
// Weights lie as [O, kernel_h, kernel_w, C/G] (cuDNN's KRSC). PyTorch's [O, C/G, kernel_h, kernel_w] becomes
// this by permute(0, 2, 3, 1). The batch may be 0.
//
// dtype is that of images, their gradients and weights. In bf16 the bias and the gradient of the weights are f32; on
// CUDA that gradient has been through bf16, since cuDNN's legacy calls give it in the type of the images.
struct ConvolutionDesc {
  DType dtype = DType::f32;
  std::int64_t batch = 0, height = 0, width = 0, channels = 0;
  std::int64_t outputs = 0;
  std::int64_t kernel_h = 1, kernel_w = 1;
  std::int64_t stride_h = 1, stride_w = 1;
  std::int64_t pad_h = 0, pad_w = 0;  // zeros on each side
  std::int64_t groups = 1;            // divides channels and outputs
  bool bias = false;

  // Of the output; at most 0 where the window does not fit.
  constexpr std::int64_t out_height() const noexcept { return extent(height, pad_h, kernel_h, stride_h); }
  constexpr std::int64_t out_width() const noexcept { return extent(width, pad_w, kernel_w, stride_w); }
  static constexpr std::int64_t extent(std::int64_t in, std::int64_t pad, std::int64_t window,
                                       std::int64_t stride) noexcept {
    return in + 2 * pad < window ? 0 : (in + 2 * pad - window) / stride + 1;
  }
  bool operator==(const ConvolutionDesc&) const = default;
};

// InternalError unless all extents make sense together (layers have told the user long before).
void require_convolution(const ConvolutionDesc& desc);

enum class ConvolutionPass : std::uint8_t { forward, backward_data, backward_weights };

// A convolution prepared once and run often, forward and both backward passes; stateless between runs, valid
// while its backend is. `workspace` has at least *_workspace() bytes (null if 0) and belongs to the call.
// A bias gradient is a ColumnSum of dy.
class Convolution {
 public:
  virtual ~Convolution() = default;
  virtual std::size_t forward_workspace() const noexcept = 0;
  virtual std::size_t backward_data_workspace() const noexcept = 0;
  virtual std::size_t backward_weights_workspace() const noexcept = 0;
  // How the vendor's library runs a pass, for people: algorithm, arithmetic, workspace. Empty where it does not tell.
  virtual std::string description(ConvolutionPass) const { return {}; }
  // bias is null unless the description asked for one.
  virtual void forward(const void* x, const void* w, const void* bias, void* y, void* workspace) = 0;
  virtual void backward_data(const void* dy, const void* w, void* dx, GradMode mode, void* workspace) = 0;
  virtual void backward_weights(const void* x, const void* dy, void* dw, GradMode mode, void* workspace) = 0;
};

}  // namespace gradflow::kernels
