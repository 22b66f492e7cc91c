// Kernels the compiler must testify against (test_witness.py): each is wrong in the way its name says.
#include <cstddef>

extern "C" __global__ void good_f32(const float4* x, float4* y) { y[threadIdx.x] = x[threadIdx.x]; }

extern "C" __global__ void narrow_f32(const float* x, float* y) { y[threadIdx.x] = 2.0f * x[threadIdx.x]; }

// An index the compiler does not know puts the array into local memory.
extern "C" __global__ void local_f32(const float4* x, float4* y, int step) {
  float4 values[16] = {};
  for (int k = 0; k < 64; ++k) values[k * step & 15] = x[threadIdx.x + k];
  y[threadIdx.x] = values[step & 15];
}

extern "C" __global__ void __launch_bounds__(1024, 2) spilled_f32(const float4* x, float4* y) {
  float4 values[24];
#pragma unroll
  for (int k = 0; k < 24; ++k) values[k] = x[threadIdx.x * 24 + k];
  __syncthreads();
#pragma unroll
  for (int k = 0; k < 24; ++k) y[threadIdx.x * 24 + 23 - k] = values[k];
}

extern "C" __global__ void shared_f32(const float4* x, float4* y) {
  __shared__ float4 values[512];
  values[threadIdx.x] = x[threadIdx.x];
  __syncthreads();
  y[threadIdx.x] = values[511 - threadIdx.x];
}

extern "C" __global__ void relaxed_f32(const float4* x, float4* y) {
  float4 v = x[threadIdx.x];
  v.x = __fdividef(v.x, v.y);
  asm("tanh.approx.f32 %0, %1;" : "=f"(v.z) : "f"(v.w));
  y[threadIdx.x] = v;
}

__global__ void mangled_f32(const float4* x, float4* y) { y[threadIdx.x] = x[threadIdx.x]; }

extern "C" __global__ void unknown(const float4* x, float4* y) { y[threadIdx.x] = x[threadIdx.x]; }
