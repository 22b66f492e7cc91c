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

// The functions pointwise ops call, in f32. Written so that no intermediate overflows.
struct Math {
  static GRADFLOW_HD float exp(float x) { return ::expf(x); }
  static GRADFLOW_HD float expm1(float x) { return ::expm1f(x); }
  static GRADFLOW_HD float tanh(float x) { return ::tanhf(x); }
  static GRADFLOW_HD float sigmoid(float x) {
    const float e = ::expf(-::fabsf(x));  // in (0, 1]; keeps the tail of negative x down to denormals
    return (x >= 0.0f ? 1.0f : e) / (1.0f + e);
  }
  static GRADFLOW_HD float softplus(float x) {
    return (x > 0.0f ? x : 0.0f) + ::log1pf(::expf(-::fabsf(x)));
  }
  static GRADFLOW_HD float normal_cdf(float x) { return ::normcdff(x); }
};

}  // namespace gradflow::kernels::cuda
