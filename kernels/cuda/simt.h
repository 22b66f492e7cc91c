// The few names a kernel file needs, so that one source is compiled by nvcc for the GPU and by a plain
// C++ compiler for a run on the CPU, thread by thread (tests/simt).
//
//   SIMT_SHARED(float, sums, [32]);     // block-shared array; uninitialized, as on the device
//
// Everything else is CUDA's own spelling: __global__, threadIdx, __syncthreads, __shfl_down_sync,
// atomicAdd, float4. On the host these come from simt_host.h, which needs no CUDA headers.
#pragma once

#ifdef __CUDACC__
#include <cuda_runtime.h>
#define SIMT_SHARED(type, name, ...) __shared__ type name __VA_ARGS__
#else
#include "kernels/cuda/simt_host.h"
#endif
