// The few names a kernel file needs, so that one source is compiled by nvcc for the GPU and by a plain
// C++ compiler for a run on the CPU, thread by thread (tests/simt).
//
//   SIMT_SHARED(float, sums, [32]);     // block-shared array; uninitialized, as on the device
//   SIMT_DYNAMIC_SHARED(float, rows);   // the launch's shared_bytes as a float*; one memory, whatever the name
//   store_relaxed(to, value);           // a store that may meet others to the same place: no data race
//   near_reciprocal(d);                 // 1 / d to one unit in the last place, for d in [2^-125, 2^125]
//   max_or_nan(a, b);                   // the larger; NaN, always the same one, where either is
//
// Everything else is CUDA's own spelling: __global__, threadIdx, __syncthreads, __shfl_down_sync,
// __ballot_sync, atomicAdd, float4, __nv_bfloat16. On the host these come from simt_host.h, which needs no CUDA headers.
#pragma once

#ifdef __CUDACC__
#include <cuda_bf16.h>
#include <cuda_runtime.h>
#define SIMT_SHARED(type, name, ...) __shared__ type name __VA_ARGS__
#define SIMT_DYNAMIC_SHARED(type, name)                        \
  extern __shared__ __align__(16) unsigned char simt_dynamic[]; \
  type* const name = reinterpret_cast<type*>(simt_dynamic)
// A volatile access is a relaxed one in PTX's memory model, whatever its size.
template <class T>
__device__ inline void store_relaxed(T* to, T value) {
  *static_cast<volatile T*>(to) = value;
}
__host__ __device__ inline float near_reciprocal(float d) {
#ifdef __CUDA_ARCH__
  float r;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(d));
  return r;
#else
  return 1.0f / d;
#endif
}
__device__ inline float max_or_nan(float a, float b) {
  float larger;
  asm("max.NaN.f32 %0, %1, %2;" : "=f"(larger) : "f"(a), "f"(b));
  return larger;
}
#else
#include "kernels/cuda/simt_host.h"
#endif
