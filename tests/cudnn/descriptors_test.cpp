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

std::string refusal_of(const ConvolutionDesc& d) {
  try {
    const ConvolutionDescriptors of(d, false);
  } catch (const UserError& e) {
    return e.what();
  }
  return "none";
}

TEST(CudnnDescriptors, AnExtentThatIsTooLargeIsSaid) {
  ConvolutionDesc d = square(1, 1, 1, 1, 0);
  d.stride_h = std::int64_t{1} << 31;
  EXPECT_NE(refusal_of(d).find("an extent of 2147483648: cuDNN takes 2147483647 at most"), std::string::npos) << refusal_of(d);
}

// One image fewer than what is refused is what cuDNN itself describes, and so it is for the batch that is named.
TEST(CudnnDescriptors, ATensorOfMoreElementsThanCudnnCountsIsRefusedWithTheBatchThatFits) {
  for (const DType dtype : {DType::f32, DType::bf16}) {
    ConvolutionDesc d{.dtype = dtype, .batch = 2675, .height = 224, .width = 224, .channels = 3, .outputs = 64,
                      .kernel_h = 7, .kernel_w = 7, .stride_h = 2, .stride_w = 2, .pad_h = 3, .pad_w = 3};
    EXPECT_EQ(refusal_of(d), "the output of a " + std::string(name_of(dtype)) +
                                 " convolution (3 to 64 channels, 7x7, images of 224x224), [2675, 112, 112, 64], has 2147532800 "
                                 "elements, and cuDNN takes 2147483647 at most; a batch of 2674 instead of 2675 would fit");
    d.batch = 2674;
    EXPECT_EQ(refusal_of(d), "none");
  }
  // 2^31 - 1 elements and one more; of the input, which is as large as the output.
  ConvolutionDesc d{.batch = 1, .height = 2147483647, .width = 1, .channels = 1, .outputs = 1};
  EXPECT_EQ(refusal_of(d), "none");
  d = {.batch = 2, .height = 32768, .width = 32768, .channels = 1, .outputs = 1};
  EXPECT_NE(refusal_of(d).find("the input of a f32"), std::string::npos) << refusal_of(d);
  EXPECT_NE(refusal_of(d).find("a batch of 1 instead of 2 would fit"), std::string::npos) << refusal_of(d);
  d.channels = d.outputs = 2, d.batch = 1;
  EXPECT_NE(refusal_of(d).find("not even a batch of 1 would fit"), std::string::npos) << refusal_of(d);
  d.channels = d.outputs = std::int64_t{1} << 40;  // more than 63 bits count, too
  EXPECT_NE(refusal_of(d).find("not even a batch of 1 would fit"), std::string::npos) << refusal_of(d);
}

TEST(CudnnDescriptors, AFailureIsToldWithItsReason) {
  EXPECT_NO_THROW(check_cudnn(CUDNN_STATUS_SUCCESS, "nothing"));
  cudnnTensorDescriptor_t t = nullptr;
  ASSERT_EQ(cudnnCreateTensorDescriptor(&t), CUDNN_STATUS_SUCCESS);
  std::string said;
  try {
    check_cudnn(cudnnSetTensor4dDescriptor(t, CUDNN_TENSOR_NHWC, CUDNN_DATA_FLOAT, -1, 1, 1, 1), "describing it");
  } catch (const InternalError& e) {
    said = e.what();
  }
  EXPECT_TRUE(said.starts_with("cuDNN: describing it failed: CUDNN_STATUS_BAD_PARAM")) << said;
  EXPECT_EQ(said.find('\n'), std::string::npos) << said;
  EXPECT_THROW(check_cudnn(CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED, "it"), UserError);
  static_cast<void>(cudnnDestroyTensorDescriptor(t));
}

}  // namespace
}  // namespace gradflow::kernels::cuda
