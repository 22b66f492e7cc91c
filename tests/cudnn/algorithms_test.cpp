// The choice among cuDNN's ranked algorithms, from rankings made up here.
#include "kernels/cuda/cudnn/algorithms.h"

#include <gtest/gtest.h>

#include <map>
#include <vector>

namespace gradflow::kernels::cuda {
namespace {

using Performance = cudnnConvolutionFwdAlgoPerf_t;
constexpr auto kFirst = CUDNN_CONVOLUTION_FWD_ALGO_IMPLICIT_PRECOMP_GEMM, kSecond = CUDNN_CONVOLUTION_FWD_ALGO_IMPLICIT_GEMM,
               kThird = CUDNN_CONVOLUTION_FWD_ALGO_GEMM;

Performance ranked(cudnnConvolutionFwdAlgo_t algorithm, cudnnMathType_t math,
                   cudnnDeterminism_t determinism = CUDNN_DETERMINISTIC, cudnnStatus_t status = CUDNN_STATUS_SUCCESS) {
  Performance p{};
  p.algo = algorithm, p.status = status, p.determinism = determinism, p.mathType = math;
  p.memory = 7;  // for the arithmetic that was ranked, which is not what runs
  return p;
}

// cuDNN's answer: bytes, or that it has no such algorithm.
using Workspaces = std::map<cudnnConvolutionFwdAlgo_t, std::size_t>;

auto chosen(const std::vector<Performance>& ranking, bool any_math, const Workspaces& workspaces) {
  return choose_algorithm(std::span(ranking), any_math, [&](auto algorithm, cudnnMathType_t math, std::size_t* bytes) {
    EXPECT_TRUE(any_math || math == CUDNN_FMA_MATH);
    const auto found = workspaces.find(algorithm);
    if (found == workspaces.end()) return CUDNN_STATUS_NOT_SUPPORTED;
    *bytes = found->second;
    return CUDNN_STATUS_SUCCESS;
  });
}

TEST(CudnnAlgorithms, TheWorkspaceIsWhatTheDescriptorsNeedNotWhatWasRanked) {
  const auto c = chosen({ranked(kFirst, CUDNN_TENSOR_OP_MATH)}, true, {{kFirst, 4096}});
  ASSERT_TRUE(c);
  EXPECT_EQ(c->algorithm, kFirst);
  EXPECT_EQ(c->workspace, 4096u);
}

TEST(CudnnAlgorithms, WhatTheDescriptorsDoNotAllowIsSkipped) {
  const std::vector ranking{ranked(kFirst, CUDNN_FMA_MATH), ranked(kSecond, CUDNN_FMA_MATH)};
  const auto c = chosen(ranking, false, {{kSecond, 0}});
  ASSERT_TRUE(c);
  EXPECT_EQ(c->algorithm, kSecond);
  EXPECT_EQ(c->workspace, 0u);
}

TEST(CudnnAlgorithms, NeverOneThatFailedOrIsNotDeterministic) {
  const std::vector ranking{ranked(kFirst, CUDNN_FMA_MATH, CUDNN_NON_DETERMINISTIC),
                            ranked(kSecond, CUDNN_FMA_MATH, CUDNN_DETERMINISTIC, CUDNN_STATUS_NOT_SUPPORTED),
                            ranked(kThird, CUDNN_DEFAULT_MATH)};
  const Workspaces all{{kFirst, 1}, {kSecond, 2}, {kThird, 3}};
  for (const bool any_math : {false, true}) {
    const auto c = chosen(ranking, any_math, all);
    ASSERT_TRUE(c);
    EXPECT_EQ(c->algorithm, kThird);
  }
  EXPECT_FALSE(chosen({ranking[0], ranking[1]}, true, all));
  EXPECT_FALSE(chosen({}, true, all));
}

// The same algorithm stands in a ranking once for each kind of arithmetic.
TEST(CudnnAlgorithms, WhereAnyArithmeticWillDoItIsWhatWasRanked) {
  const std::vector ranking{ranked(kFirst, CUDNN_TENSOR_OP_MATH_ALLOW_CONVERSION), ranked(kFirst, CUDNN_DEFAULT_MATH),
                            ranked(kFirst, CUDNN_TENSOR_OP_MATH)};
  const auto c = choose_algorithm(std::span(ranking), true, [](auto, cudnnMathType_t math, std::size_t* bytes) {
    *bytes = 5;
    return math == CUDNN_TENSOR_OP_MATH ? CUDNN_STATUS_SUCCESS : CUDNN_STATUS_NOT_SUPPORTED;
  });
  ASSERT_TRUE(c);
  EXPECT_EQ(c->math, CUDNN_TENSOR_OP_MATH);
  EXPECT_EQ(chosen(ranking, true, {{kFirst, 0}})->math, CUDNN_DEFAULT_MATH);
  EXPECT_EQ(chosen(ranking, false, {{kFirst, 0}})->math, CUDNN_FMA_MATH);
}

TEST(CudnnAlgorithms, AChoiceCanBeRead) {
  EXPECT_EQ(text_of(Chosen<cudnnConvolutionFwdAlgo_t>{.algorithm = kFirst, .math = CUDNN_TENSOR_OP_MATH, .workspace = 1500000}),
            "cuDNN implicit GEMM with indices beforehand (1), tensor cores, 1.5 MB workspace");
  EXPECT_EQ(text_of(Chosen<cudnnConvolutionBwdFilterAlgo_t>{.algorithm = CUDNN_CONVOLUTION_BWD_FILTER_ALGO_3, .math = CUDNN_FMA_MATH}),
            "cuDNN algorithm (3), multiply-adds, 0.0 MB workspace");
}

TEST(CudnnAlgorithms, NeverOneThatTransforms) {
  const auto winograd = CUDNN_CONVOLUTION_FWD_ALGO_WINOGRAD_NONFUSED, fourier = CUDNN_CONVOLUTION_FWD_ALGO_FFT_TILING;
  const std::vector ranking{ranked(winograd, CUDNN_FMA_MATH), ranked(fourier, CUDNN_FMA_MATH),
                            ranked(kFirst, CUDNN_FMA_MATH)};
  for (const bool any_math : {false, true}) {
    EXPECT_EQ(chosen(ranking, any_math, {{winograd, 1}, {fourier, 2}, {kFirst, 3}})->algorithm, kFirst);
    EXPECT_FALSE(chosen(ranking, any_math, {{winograd, 1}, {fourier, 2}}));
  }
  EXPECT_TRUE(adds_products(CUDNN_CONVOLUTION_BWD_DATA_ALGO_1) && adds_products(CUDNN_CONVOLUTION_BWD_FILTER_ALGO_1));
  EXPECT_FALSE(adds_products(CUDNN_CONVOLUTION_BWD_DATA_ALGO_WINOGRAD));
  EXPECT_FALSE(adds_products(CUDNN_CONVOLUTION_BWD_FILTER_ALGO_FFT));
}

TEST(CudnnAlgorithms, OnMultiplyAddsThoseRankedWithTensorCoresComeLast) {
  const std::vector ranking{ranked(kFirst, CUDNN_TENSOR_OP_MATH), ranked(kSecond, CUDNN_FMA_MATH)};
  const Workspaces all{{kFirst, 1}, {kSecond, 2}};
  EXPECT_EQ(chosen(ranking, false, all)->algorithm, kSecond);
  EXPECT_EQ(chosen(ranking, true, all)->algorithm, kFirst);
  // The only one left, and cuDNN has it with multiply-adds.
  EXPECT_EQ(chosen(ranking, false, {{kFirst, 1}})->algorithm, kFirst);
}

}  // namespace
}  // namespace gradflow::kernels::cuda
