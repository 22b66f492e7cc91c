// Which algorithm of cuDNN's ranking a pass runs with. Needs no device, so tests hand it rankings of their own.
#pragma once

#include <cstddef>
#include <optional>
#include <span>
#include <string>

#include <fmt/format.h>

#include "kernels/cuda/cudnn/descriptors.h"

namespace gradflow::kernels::cuda {

template <class Algorithm>
struct Chosen {
  Algorithm algorithm{};
  cudnnMathType_t math = CUDNN_DEFAULT_MATH;  // what the descriptor must say when it runs
  std::size_t workspace = 0;                  // bytes
};

constexpr const char* name_of(cudnnConvolutionFwdAlgo_t a) {
  switch (a) {
    case CUDNN_CONVOLUTION_FWD_ALGO_IMPLICIT_GEMM: return "implicit GEMM";
    case CUDNN_CONVOLUTION_FWD_ALGO_IMPLICIT_PRECOMP_GEMM: return "implicit GEMM with indices beforehand";
    case CUDNN_CONVOLUTION_FWD_ALGO_GEMM: return "GEMM";
    case CUDNN_CONVOLUTION_FWD_ALGO_DIRECT: return "direct";
    default: return "algorithm";
  }
}
constexpr const char* name_of(cudnnConvolutionBwdDataAlgo_t) { return "algorithm"; }
constexpr const char* name_of(cudnnConvolutionBwdFilterAlgo_t) { return "algorithm"; }

constexpr const char* name_of(cudnnMathType_t math) {
  switch (math) {
    case CUDNN_FMA_MATH: return "multiply-adds";
    case CUDNN_DEFAULT_MATH: return "default math";
    case CUDNN_TENSOR_OP_MATH: return "tensor cores";
    case CUDNN_TENSOR_OP_MATH_ALLOW_CONVERSION: return "tensor cores, converting";
    default: return "other math";
  }
}

// "cuDNN implicit GEMM (0), tensor cores, 1.5 MB workspace": the number is cuDNN's of the algorithm, whose backward ones
// have no other name.
template <class Algorithm>
std::string text_of(const Chosen<Algorithm>& c) {
  return fmt::format("cuDNN {} ({}), {}, {:.1f} MB workspace", name_of(c.algorithm), static_cast<int>(c.algorithm), name_of(c.math),
                     1e-6 * static_cast<double>(c.workspace));
}

// Whether an algorithm adds up the products of the definition. Winograd's and the Fourier transform's do not: they
// err by more, and where all that a number depends on is zero they leave a rounding error, in a program that counts
// zeros.
constexpr bool adds_products(cudnnConvolutionFwdAlgo_t a) {
  return a == CUDNN_CONVOLUTION_FWD_ALGO_IMPLICIT_GEMM || a == CUDNN_CONVOLUTION_FWD_ALGO_IMPLICIT_PRECOMP_GEMM ||
         a == CUDNN_CONVOLUTION_FWD_ALGO_GEMM || a == CUDNN_CONVOLUTION_FWD_ALGO_DIRECT;
}
constexpr bool adds_products(cudnnConvolutionBwdDataAlgo_t a) {
  return a == CUDNN_CONVOLUTION_BWD_DATA_ALGO_0 || a == CUDNN_CONVOLUTION_BWD_DATA_ALGO_1;
}
constexpr bool adds_products(cudnnConvolutionBwdFilterAlgo_t a) {
  return a == CUDNN_CONVOLUTION_BWD_FILTER_ALGO_0 || a == CUDNN_CONVOLUTION_BWD_FILTER_ALGO_1 ||
         a == CUDNN_CONVOLUTION_BWD_FILTER_ALGO_3;
}

// The first of `ranking` that adds products, that is deterministic, so that a step gives the same bits every time, and
// that cuDNN has: ask(algorithm, math, &bytes), one of cudnnGetConvolution...WorkspaceSize, must succeed, and what it
// says is booked. A ranking holds an algorithm once for each kind of arithmetic, and only both together say which
// kernel runs, so that with `any_math` it runs with what it was ranked with. Without, multiply-adds alone are allowed,
// whatever was ranked: those ranked with tensor cores come last then, slower on multiply-adds than their rank says.
// f32 numbers are never made f16 ones. Nothing where no algorithm is left.
template <class Performance, class Ask>
auto choose_algorithm(std::span<const Performance> ranking, bool any_math, const Ask& ask)
    -> std::optional<Chosen<decltype(Performance::algo)>> {
  const auto on_own_math = [&](const Performance& p) {
    return any_math || p.mathType == CUDNN_FMA_MATH || p.mathType == CUDNN_DEFAULT_MATH;
  };
  for (const bool own_math : {true, false})
    for (const Performance& p : ranking) {
      if (p.status != CUDNN_STATUS_SUCCESS || p.determinism != CUDNN_DETERMINISTIC) continue;
      if (!adds_products(p.algo) || on_own_math(p) != own_math) continue;
      Chosen<decltype(Performance::algo)> chosen{.algorithm = p.algo, .math = any_math ? p.mathType : CUDNN_FMA_MATH};
      if (chosen.math == CUDNN_TENSOR_OP_MATH_ALLOW_CONVERSION) continue;
      if (ask(chosen.algorithm, chosen.math, &chosen.workspace) == CUDNN_STATUS_SUCCESS) return chosen;
    }
  return std::nullopt;
}

}  // namespace gradflow::kernels::cuda
