// cuDNN's arithmetic of shapes against ours, and the layout and precision it was told.
#include "kernels/cuda/cudnn/descriptors.h"

#include <gtest/gtest.h>

#include "gradflow/kernels/error.h"

namespace gradflow::kernels::cuda {
namespace {

ConvolutionDesc square(std::int64_t height, std::int64_t width, std::int64_t kernel, std::int64_t stride,
                       std::int64_t pad, std::int64_t groups = 1) {
  return {.batch = 3,
          .height = height,
          .width = width,
          .channels = 8,
          .outputs = 12,
          .kernel_h = kernel,
          .kernel_w = kernel,
          .stride_h = stride,
          .stride_w = stride,
          .pad_h = pad,
          .pad_w = pad,
          .groups = groups};
}

TEST(CudnnDescriptors, OutputsHaveTheShapeThatWeInfer) {
  for (const std::int64_t kernel : {1, 2, 3, 7})
    for (const std::int64_t stride : {1, 2, 3})
      for (const std::int64_t pad : {0, 1, 3})
        for (const std::int64_t groups : {1, 4}) {
          const ConvolutionDesc d = square(9, 14, kernel, stride, pad, groups);
          const std::array<std::int64_t, 4> want{3, d.out_height(), d.out_width(), 12};
          EXPECT_EQ(ConvolutionDescriptors(d, false).output_shape(), want)
              << kernel << " " << stride << " " << pad << " " << groups;
        }
  ConvolutionDesc oblong = square(7, 6, 3, 1, 0);
  oblong.kernel_w = 5, oblong.stride_w = 2, oblong.pad_h = 2;
  EXPECT_EQ(ConvolutionDescriptors(oblong, false).output_shape(), (std::array<std::int64_t, 4>{3, 9, 1, 12}));
}

TEST(CudnnDescriptors, ImagesAreChannelsLastAndArithmeticIsF32) {
  const ConvolutionDescriptors of(square(9, 14, 3, 2, 1, 4), false);
  cudnnDataType_t type{};
  int n = 0, c = 0, h = 0, w = 0, strides[4] = {};
  ASSERT_EQ(cudnnGetTensor4dDescriptor(of.x, &type, &n, &c, &h, &w, &strides[0], &strides[1], &strides[2],
                                       &strides[3]),
            CUDNN_STATUS_SUCCESS);
  EXPECT_EQ(type, CUDNN_DATA_FLOAT);
  EXPECT_EQ((std::array{n, c, h, w}), (std::array{3, 8, 9, 14}));
  EXPECT_EQ((std::array{strides[0], strides[1], strides[2], strides[3]}),
            (std::array{9 * 14 * 8, 1, 14 * 8, 8}));
  cudnnTensorFormat_t format{};
  int k = 0;
  ASSERT_EQ(cudnnGetFilter4dDescriptor(of.w, &type, &format, &k, &c, &h, &w), CUDNN_STATUS_SUCCESS);
  EXPECT_EQ(format, CUDNN_TENSOR_NHWC);
  EXPECT_EQ((std::array{k, c, h, w}), (std::array{12, 2, 3, 3}));
  cudnnMathType_t math{};
  ASSERT_EQ(cudnnGetConvolutionMathType(of.convolution, &math), CUDNN_STATUS_SUCCESS);
  EXPECT_EQ(math, CUDNN_FMA_MATH);
  int groups = 0;
  ASSERT_EQ(cudnnGetConvolutionGroupCount(of.convolution, &groups), CUDNN_STATUS_SUCCESS);
  EXPECT_EQ(groups, 4);
}

TEST(CudnnDescriptors, Bf16AndTf32RunOnTensorCores) {
  ConvolutionDesc d = square(9, 14, 3, 2, 1);
  cudnnMathType_t math{};
  ASSERT_EQ(cudnnGetConvolutionMathType(ConvolutionDescriptors(d, true).convolution, &math),
            CUDNN_STATUS_SUCCESS);
  EXPECT_EQ(math, CUDNN_DEFAULT_MATH);
  d.dtype = DType::bf16;
  for (const bool tf32 : {false, true}) {
    const ConvolutionDescriptors of(d, tf32);
    ASSERT_EQ(cudnnGetConvolutionMathType(of.convolution, &math), CUDNN_STATUS_SUCCESS);
    EXPECT_EQ(math, CUDNN_TENSOR_OP_MATH);
    cudnnDataType_t type{}, sums{};
    int n = 0, c = 0, h = 0, w = 0, strides[4] = {};
    for (const cudnnTensorDescriptor_t image : {of.x, of.y}) {
      ASSERT_EQ(cudnnGetTensor4dDescriptor(image, &type, &n, &c, &h, &w, &strides[0], &strides[1],
                                           &strides[2], &strides[3]),
                CUDNN_STATUS_SUCCESS);
      EXPECT_EQ(type, CUDNN_DATA_BFLOAT16);
    }
    cudnnTensorFormat_t format{};
    ASSERT_EQ(cudnnGetFilter4dDescriptor(of.w, &type, &format, &n, &c, &h, &w), CUDNN_STATUS_SUCCESS);
    EXPECT_EQ(type, CUDNN_DATA_BFLOAT16);
    int of_two[8] = {};
    cudnnConvolutionMode_t mode{};
    ASSERT_EQ(cudnnGetConvolution2dDescriptor(of.convolution, &of_two[0], &of_two[1], &of_two[2], &of_two[3],
                                              &of_two[4], &of_two[5], &mode, &sums),
              CUDNN_STATUS_SUCCESS);
    EXPECT_EQ(sums, CUDNN_DATA_FLOAT);
  }
}

TEST(CudnnDescriptors, WhatIsTooLargeIsSaid) {
  ConvolutionDesc d = square(9, 14, 3, 1, 1);
  d.batch = std::int64_t{1} << 31;
  EXPECT_THROW((ConvolutionDescriptors{d, false}), UserError);
}

}  // namespace
}  // namespace gradflow::kernels::cuda
