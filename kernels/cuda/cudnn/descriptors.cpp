#include "kernels/cuda/cudnn/descriptors.h"

#include <cuda_runtime_api.h>

#include <algorithm>
#include <initializer_list>
#include <limits>

#include "gradflow/kernels/error.h"

namespace gradflow::kernels::cuda {
namespace {

constexpr std::int64_t kMost = std::numeric_limits<int>::max();  // of an extent and of a tensor's elements

int to_int(std::int64_t n) {
  if (n > kMost)
    throw UserError("a convolution with an extent of " + std::to_string(n) + ": cuDNN takes " + std::to_string(kMost) +
                    " at most");
  return static_cast<int>(n);
}

std::string shape_text(std::initializer_list<std::int64_t> shape) {
  std::string text;
  for (const std::int64_t n : shape) text += (text.empty() ? "[" : ", ") + std::to_string(n);
  return text + "]";
}

// a * b, or the largest number there is.
std::int64_t product(std::int64_t a, std::int64_t b) {
  std::int64_t result = 0;
  return __builtin_mul_overflow(a, b, &result) ? std::numeric_limits<std::int64_t>::max() : result;
}

// cuDNN counts a tensor's elements in 31 bits.
void require_size(const ConvolutionDesc& d) {
  const std::int64_t x = product(product(d.height, d.width), d.channels);
  const std::int64_t y = product(product(d.out_height(), d.out_width()), d.outputs);
  const std::int64_t image = std::max(x, y);
  if (product(image, d.batch) <= kMost) return;
  const std::int64_t fits = kMost / image;
  const std::string shape = x >= y ? shape_text({d.batch, d.height, d.width, d.channels})
                                   : shape_text({d.batch, d.out_height(), d.out_width(), d.outputs});
  throw UserError("the " + std::string(x >= y ? "input" : "output") + " of " + text_of(d) + ", " + shape + ", has " +
                  std::to_string(product(image, d.batch)) + " elements, and cuDNN takes " + std::to_string(kMost) +
                  " at most; " +
                  (fits > 0 ? "a batch of " + std::to_string(fits) + " instead of " + std::to_string(d.batch) + " would fit"
                            : "not even a batch of 1 would fit: use smaller images or --device cpu"));
}

}  // namespace

void check_cudnn(cudnnStatus_t status, const char* what) {
  if (status == CUDNN_STATUS_SUCCESS) return;
  static_cast<void>(cudaGetLastError());  // stays behind where a launch inside failed
  char reason[512] = "";
  cudnnGetLastErrorString(reason, sizeof reason);
  std::string text = std::string("cuDNN: ") + what + " failed: " + cudnnGetErrorString(status);
  for (const char* c = reason; *c; ++c) text += (c == reason ? " (" : "") + std::string(1, *c == '\n' ? ' ' : *c);
  if (*reason) text += ")";
  if (status == CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED) throw UserError(text + ": out of device memory");
  throw InternalError(text);
}

std::string text_of(const ConvolutionDesc& d) {
  return "a " + std::string(name_of(d.dtype)) + " convolution (" + std::to_string(d.channels) + " to " +
         std::to_string(d.outputs) + " channels, " + std::to_string(d.kernel_h) + "x" + std::to_string(d.kernel_w) +
         (d.groups > 1 ? ", " + std::to_string(d.groups) + " groups" : "") + ", images of " + std::to_string(d.height) +
         "x" + std::to_string(d.width) + ")";
}

// On tensor cores; for f32 operands the default math is TF32.
ConvolutionDescriptors::ConvolutionDescriptors(const ConvolutionDesc& d, bool tf32)
    : math(d.dtype == DType::bf16 ? CUDNN_TENSOR_OP_MATH
           : tf32                 ? CUDNN_DEFAULT_MATH
                                  : CUDNN_FMA_MATH) {
  require_size(d);
  const cudnnDataType_t type = d.dtype == DType::bf16 ? CUDNN_DATA_BFLOAT16 : CUDNN_DATA_FLOAT;
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
    allow(math);
  } catch (...) {
    release();
    throw;
  }
}

ConvolutionDescriptors::~ConvolutionDescriptors() { release(); }

void ConvolutionDescriptors::allow(cudnnMathType_t allowed) const {
  check_cudnn(cudnnSetConvolutionMathType(convolution, allowed), "asking for arithmetic");
}

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
