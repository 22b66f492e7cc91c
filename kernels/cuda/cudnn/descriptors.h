// What cuDNN is told about a convolution. Needs no device, so tests compare its arithmetic with ours.
#pragma once

// The legacy calls (cudnnConvolutionForward, ...) are marked deprecated since cuDNN 9 and still exported.
// They are used on purpose. The graph API (cudnnBackend*) would add fusion with pointwise operations, and
// costs, without the C++ frontend that no distribution packages, some hundred lines of attribute setting per
// operation. What may be fused here (batch norm, activation, addition) is in kernels of ours, which read the
// batch statistics; cuDNN's runtime fusion covers forward passes without them. When the legacy calls go, this
// folder changes.
#define CUDNN_WARN_DEPRECATED_OFF
#include <cudnn.h>

#include <array>
#include <string>

#include "gradflow/kernels/backend.h"

namespace gradflow::kernels::cuda {

// InternalError with cuDNN's reason; UserError where the device has no memory left.
void check_cudnn(cudnnStatus_t status, const char* what);

// "a bf16 convolution (3 to 16 channels, 3x3, images of 32x32)"
std::string text_of(const ConvolutionDesc& desc);

// Owns the four descriptors of one convolution: images NHWC, weights [outputs, height, width, channels /
// groups], in the description's type throughout (the gradient of the weights too: cuDNN has no other), sums f32. f32
// numbers are multiplied as they are, or as TF32 if that is allowed; bf16 ones on tensor cores. UserError where a tensor
// has more elements than cuDNN can count (2^31 - 1), naming the tensor and the batch that would fit.
class ConvolutionDescriptors {
 public:
  ConvolutionDescriptors(const ConvolutionDesc& desc, bool tf32);
  ~ConvolutionDescriptors();
  ConvolutionDescriptors(const ConvolutionDescriptors&) = delete;
  ConvolutionDescriptors& operator=(const ConvolutionDescriptors&) = delete;

  // The arithmetic that what comes next may use; at first `math`.
  void allow(cudnnMathType_t allowed) const;

  // batch, height, width, outputs, by cuDNN's own computation.
  std::array<std::int64_t, 4> output_shape() const;

  const cudnnMathType_t math;
  cudnnTensorDescriptor_t x = nullptr, y = nullptr;
  cudnnFilterDescriptor_t w = nullptr;
  cudnnConvolutionDescriptor_t convolution = nullptr;

 private:
  void release() noexcept;
};

}  // namespace gradflow::kernels::cuda
