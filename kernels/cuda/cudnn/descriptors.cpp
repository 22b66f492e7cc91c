#include "kernels/cuda/cudnn/descriptors.h"

#include <limits>

#include "gradflow/kernels/error.h"

namespace gradflow::kernels::cuda {
namespace {

int to_int(std::int64_t n) {
  if (n > std::numeric_limits<int>::max())
    throw UserError("a convolution with an extent of " + std::to_string(n) +
                    ": cuDNN takes 2147483647 at most");
  return static_cast<int>(n);
}

}  // namespace

void check_cudnn(cudnnStatus_t status, const char* what) {
  if (status == CUDNN_STATUS_SUCCESS) return;
  throw InternalError(std::string("cuDNN: ") + what + " failed: " + cudnnGetErrorString(status));
}

ConvolutionDescriptors::ConvolutionDescriptors(const ConvolutionDesc& d, bool tf32) {
  const cudnnDataType_t type = d.dtype == DType::bf16 ? CUDNN_DATA_BFLOAT16 : CUDNN_DATA_FLOAT;
  // On tensor cores; for f32 operands the default math is TF32.
  const cudnnMathType_t math = d.dtype == DType::bf16 ? CUDNN_TENSOR_OP_MATH
                               : tf32                 ? CUDNN_DEFAULT_MATH
                                                      : CUDNN_FMA_MATH;
  try {
    check_cudnn(cudnnCreateTensorDescriptor(&x), "describing the input");
    check_cudnn(cudnnCreateTensorDescriptor(&y), "describing the output");
    check_cudnn(cudnnCreateFilterDescriptor(&w), "describing the weights");
    check_cudnn(cudnnCreateConvolutionDescriptor(&convolution), "describing a convolution");
    const auto image = [&](cudnnTensorDescriptor_t t, std::int64_t height, std::int64_t width,
                           std::int64_t channels) {
      return cudnnSetTensor4dDescriptor(t, CUDNN_TENSOR_NHWC, type, to_int(d.batch), to_int(channels),
                                        to_int(height), to_int(width));
    };
    check_cudnn(image(x, d.height, d.width, d.channels), "describing the input");
    check_cudnn(image(y, d.out_height(), d.out_width(), d.outputs), "describing the output");
    check_cudnn(
        cudnnSetFilter4dDescriptor(w, type, CUDNN_TENSOR_NHWC, to_int(d.outputs),
                                   to_int(d.channels / d.groups), to_int(d.kernel_h), to_int(d.kernel_w)),
        "describing the weights");
    check_cudnn(
        cudnnSetConvolution2dDescriptor(convolution, to_int(d.pad_h), to_int(d.pad_w), to_int(d.stride_h),
                                        to_int(d.stride_w), 1, 1, CUDNN_CROSS_CORRELATION, CUDNN_DATA_FLOAT),
        "describing a convolution");
    check_cudnn(cudnnSetConvolutionGroupCount(convolution, to_int(d.groups)), "setting the groups");
    check_cudnn(cudnnSetConvolutionMathType(convolution, math), "asking for arithmetic");
  } catch (...) {
    release();
    throw;
  }
}

ConvolutionDescriptors::~ConvolutionDescriptors() { release(); }

std::array<std::int64_t, 4> ConvolutionDescriptors::output_shape() const {
  int n = 0, c = 0, h = 0, width = 0;
  check_cudnn(cudnnGetConvolution2dForwardOutputDim(convolution, x, w, &n, &c, &h, &width),
              "inferring the output's shape");
  return {n, h, width, c};
}

void ConvolutionDescriptors::release() noexcept {
  if (x) static_cast<void>(cudnnDestroyTensorDescriptor(x));
  if (y) static_cast<void>(cudnnDestroyTensorDescriptor(y));
  if (w) static_cast<void>(cudnnDestroyFilterDescriptor(w));
  if (convolution) static_cast<void>(cudnnDestroyConvolutionDescriptor(convolution));
}

}  // namespace gradflow::kernels::cuda
