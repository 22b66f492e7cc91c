// Walking over arrays: 16 bytes a thread and several loads in flight where alignment allows, element by
// element otherwise.
//
//   struct Body {
//     static constexpr int kWidth = kPackOf<S>;                                // elements of a pack
//     template <int W> __device__ auto load(std::size_t i) const;              // reads elements [i, i+W)
//     template <int W> __device__ void store(std::size_t i, const auto& in);   // computes and writes them
//   };
//   Body body{...};
//   stream_over(n, vector, body);
//
// All loads of a batch happen before its stores and each element is read and written by one thread, so
// outputs may be inputs. `vector` promises 16-byte alignment of every pointer the body uses.
#pragma once

#include <cmath>
#include <cstddef>

#include "gradflow/kernels/pointwise_ops.h"
#include "kernels/cuda/simt.h"
#include "kernels/cuda/storage.cuh"

namespace gradflow::kernels::cuda {

inline constexpr int kInFlight = 4;  // packs a thread loads before it computes
template <class S>
inline constexpr std::size_t kStreamItemsPerBlock = 256 * kPackOf<S> * kInFlight;

// [first, n) by threads `thread` of `threads`, in packs of W with kUnroll of them in flight.
template <int W, int kUnroll, class Body>
__device__ inline void stream_packs(std::size_t packs, std::size_t thread, std::size_t threads, Body& body) {
  using Loaded = decltype(body.template load<W>(0));
  std::size_t i = thread;
  for (; i + (kUnroll - 1) * threads < packs; i += kUnroll * threads) {
    Loaded in[kUnroll];
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) in[u] = body.template load<W>(W * (i + u * threads));
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) body.template store<W>(W * (i + u * threads), in[u]);
  }
  for (; i < packs; i += threads) body.template store<W>(W * i, body.template load<W>(W * i));
}

template <int kUnroll = kInFlight, class Body>
__device__ inline void stream_over(std::size_t n, bool vector, Body& body) {
  const std::size_t thread = std::size_t{blockIdx.x} * blockDim.x + threadIdx.x;
  const std::size_t threads = std::size_t{gridDim.x} * blockDim.x;
  if (!vector) return stream_packs<1, kUnroll>(n, thread, threads, body);
  constexpr int kWidth = Body::kWidth;
  const std::size_t packs = n / kWidth;
  stream_packs<kWidth, kUnroll>(packs, thread, threads, body);
  const std::size_t tail = kWidth * packs + thread;
  if (tail < n) body.template store<1>(tail, body.template load<1>(tail));
}

// a / d for d in [1, 2^24] and a in [0, d]: the quotient, then what it leaves over. As the division of CUDA, but for the
// branch with which that takes any operand, and which costs more than the division. Rounded as IEEE 754 asks where the
// quotient is a normal number, within one unit where it is not.
__host__ __device__ inline float divide(float a, float d) {
#ifndef __CUDA_ARCH__
  if (d != d) return d;  // other processors' NaN has a sign, which depends on the order of operands below
#endif
  const float r = near_reciprocal(d);
  const float q = a * r;
  return ::fmaf(::fmaf(-d, q, a), r, q);
}

// The functions pointwise ops call, in f32. Written so that no intermediate overflows.
struct Math {
  static GRADFLOW_HD float exp(float x) { return ::expf(x); }
  static GRADFLOW_HD float expm1(float x) { return ::expm1f(x); }
  static GRADFLOW_HD float tanh(float x) { return ::tanhf(x); }
  static GRADFLOW_HD float sigmoid(float x) {
    const float e = ::expf(-::fabsf(x));  // in (0, 1]; keeps the tail of negative x down to denormals
    return divide(x >= 0.0f ? 1.0f : e, 1.0f + e);
  }
  // max(x, 0) + log(1 + e) with e = exp(-|x|) in [0, 1]; log(1 + e) = 2 atanh(s) with s = e/(2+e) <= 1/3, as
  // t (1 + s^2/3 + s^4/5 + ...) with t = 2s, which is e itself for a denormal. The first term left out, s^16/17, is
  // below 2e-9.
  static GRADFLOW_HD float softplus(float x) {
    const float e = ::expf(-::fabsf(x));
    const float t = divide(e, ::fmaf(0.5f, e, 1.0f));
    const float z = 0.25f * (t * t);
    float p = 1.0f / 15.0f;
    p = ::fmaf(p, z, 1.0f / 13.0f);
    p = ::fmaf(p, z, 1.0f / 11.0f);
    p = ::fmaf(p, z, 1.0f / 9.0f);
    p = ::fmaf(p, z, 1.0f / 7.0f);
    p = ::fmaf(p, z, 1.0f / 5.0f);
    p = ::fmaf(p, z, 1.0f / 3.0f);
    return (x > 0.0f ? x : 0.0f) + ::fmaf(t, z * p, t);
  }
  // P(-t) = exp(-t^2/2) r(t) for t = |x|; 1 - P(-t) does not cancel. r(t) (t + 5/2) is 5/4 at 0 and smooth: a polynomial
  // in t/(t + 5/2) that interpolates it at the extrema of a Chebyshev polynomial, to 4e-8. The rounding error of t^2 would
  // be multiplied by t^2, so it is taken out. Within 5 units in the last place, denormal tails included: what CUDA states
  // for normcdff, in 36 instructions instead of 62. The exp is that of the density, in the same words, so that GELU's
  // derivative computes it once.
  static GRADFLOW_HD float normal_cdf(float x) {
    const float t = ::fminf(::fabsf(x), 15.0f);  // P(-15) is below the smallest denormal
    const float error = ::fmaf(t, t, -(t * t));
    const float e = ::expf(-0.5f * (x * x));
    const float d = t + 2.5f;
    const float near = near_reciprocal(d);
    const float inverse = ::fmaf(::fmaf(-d, near, 1.0f), near, near);
    const float v = t * inverse;
    float p = -0x1.6663dp-5f;
    p = ::fmaf(p, v, 0x1.b287d4p-4f);
    p = ::fmaf(p, v, -0x1.c858d2p-5f);
    p = ::fmaf(p, v, 0x1.5eac08p-6f);
    p = ::fmaf(p, v, -0x1.044ffep-4f);
    p = ::fmaf(p, v, -0x1.329f0ap-4f);
    p = ::fmaf(p, v, 0x1.4105f4p-5f);
    p = ::fmaf(p, v, 0x1.2d137p-2f);
    p = ::fmaf(p, v, 0x1.5b13ecp-3f);
    p = ::fmaf(p, v, -0x1.3e4ec2p+0f);
    p = ::fmaf(p, v, 0x1.4p+0f);
    const float tail = ::fmaf(e, -0.5f * error, e) * (p * inverse);
    return x > 0.0f ? 1.0f - tail : tail;
  }
};

}  // namespace gradflow::kernels::cuda
