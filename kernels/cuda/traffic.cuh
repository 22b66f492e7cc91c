// The yardstick for everything else: kernels that move memory and do next to nothing with it.
// Bytes moved per element: read 4, copy 8, add 12.
#pragma once

#include "kernels/cuda/stream.cuh"

namespace gradflow::kernels::cuda {

struct MemoryReadBody {
  static constexpr int kWidth = kPackOf<float>;
  const float* a;
  bool nan;

  template <int W>
  __device__ Pack<W> load(std::size_t i) const {
    return load_pack<W>(a + i);
  }
  template <int W>
  __device__ void store(std::size_t, const Pack<W>& in) {
#pragma unroll
    for (int k = 0; k < W; ++k) nan |= in.v[k] != in.v[k];
  }
};

// Threads that find a NaN write the same value to *y, in any order.
extern "C" __global__ void __launch_bounds__(kBlockThreads)
    memory_read_f32(const float* a, float* y, std::size_t n, bool vector) {
  MemoryReadBody body{a, false};
  stream_over(n, vector, body);
  if (body.nan) store_relaxed(y, __uint_as_float(0x7fc00000u));
}

struct MemoryCopyBody {
  static constexpr int kWidth = kPackOf<float>;
  const float* a;
  float* y;

  template <int W>
  __device__ Pack<W> load(std::size_t i) const {
    return load_pack<W>(a + i);
  }
  template <int W>
  __device__ void store(std::size_t i, const Pack<W>& in) {
    store_pack(y + i, in);
  }
};

extern "C" __global__ void __launch_bounds__(kBlockThreads)
    memory_copy_f32(const float* a, float* y, std::size_t n, bool vector) {
  MemoryCopyBody body{a, y};
  stream_over(n, vector, body);
}

struct MemoryAddBody {
  static constexpr int kWidth = kPackOf<float>;
  const float* a;
  const float* b;
  float* y;

  template <int W>
  struct Loaded {
    Pack<W> a, b;
  };
  template <int W>
  __device__ Loaded<W> load(std::size_t i) const {
    return {load_pack<W>(a + i), load_pack<W>(b + i)};
  }
  template <int W>
  __device__ void store(std::size_t i, const Loaded<W>& in) {
    Pack<W> out;
#pragma unroll
    for (int k = 0; k < W; ++k) out.v[k] = in.a.v[k] + in.b.v[k];
    store_pack(y + i, out);
  }
};

extern "C" __global__ void __launch_bounds__(kBlockThreads)
    memory_add_f32(const float* a, const float* b, float* y, std::size_t n, bool vector) {
  MemoryAddBody body{a, b, y};
  stream_over<2>(n, vector, body);
}

}  // namespace gradflow::kernels::cuda
