// How numbers lie in memory: f32 or bf16 (S), always f32 in registers. A pack is what one thread moves with one
// instruction: 16 bytes, 4 floats or 8 bf16, or a single element.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "kernels/cuda/simt.h"

namespace gradflow::kernels::cuda {

using Bf16 = __nv_bfloat16;

template <class S>
inline constexpr int kPackOf = 16 / sizeof(S);

template <int W>
struct Pack {
  float v[W];
};

// Packs in flight where a thread holds other things beside them: 4, or 2 of eight numbers.
template <int W>
inline constexpr int kPacksHeld = W > 4 ? 2 : 4;

__device__ inline float widen(float x) { return x; }
__device__ inline float widen(Bf16 x) { return __bfloat162float(x); }

// Rounds to nearest, ties to even; NaN stays NaN.
template <class S>
__device__ inline S narrow(float x) {
  if constexpr (std::is_same_v<S, float>) {
    return x;
  } else {
    return __float2bfloat16_rn(x);
  }
}

// Two bf16 in the order of memory, as 32 bits.
__device__ inline unsigned pack_two(float first, float second) {
  const __nv_bfloat162 two = __floats2bfloat162_rn(first, second);
  unsigned bits;
  static_assert(sizeof bits == sizeof two);
  memcpy(&bits, &two, sizeof bits);
  return bits;
}

// The value as it will be read back: what statistics of an output are of. A bf16 in the upper half of 32 bits is the
// widened number, so this is one instruction, and not one of those for single conversions, which are slow.
template <class S>
__device__ inline float as_stored(float x) {
  if constexpr (std::is_same_v<S, float>) {
    return x;
  } else {
    return __uint_as_float(pack_two(0.0f, x));
  }
}

template <class S, int W>
__device__ inline Pack<W> as_stored(const Pack<W>& pack) {
  Pack<W> stored;
#pragma unroll
  for (int k = 0; k < W; ++k) stored.v[k] = as_stored<S>(pack.v[k]);
  return stored;
}

// W * sizeof is 16 or 32 bytes from a 16-byte aligned address, or W is 1.
template <int W>
__device__ inline Pack<W> load_pack(const float* p) {
  Pack<W> pack;
  if constexpr (W == 1) {
    pack.v[0] = *p;
  } else {
    static_assert(W % 4 == 0);
#pragma unroll
    for (int k = 0; k < W; k += 4) {
      const float4 q = *reinterpret_cast<const float4*>(p + k);
      pack.v[k] = q.x, pack.v[k + 1] = q.y, pack.v[k + 2] = q.z, pack.v[k + 3] = q.w;
    }
  }
  return pack;
}

template <int W>
__device__ inline void store_pack(float* p, const Pack<W>& pack) {
  if constexpr (W == 1) {
    *p = pack.v[0];
  } else {
    static_assert(W % 4 == 0);
#pragma unroll
    for (int k = 0; k < W; k += 4) {
      *reinterpret_cast<float4*>(p + k) = float4{pack.v[k], pack.v[k + 1], pack.v[k + 2], pack.v[k + 3]};
    }
  }
}

// The same of integers.
template <int W>
struct IntPack {
  std::int32_t v[W];
};

template <int W>
__device__ inline IntPack<W> load_ints(const std::int32_t* p) {
  IntPack<W> pack;
  if constexpr (W == 1) {
    pack.v[0] = *p;
  } else {
    static_assert(W % 4 == 0);
#pragma unroll
    for (int k = 0; k < W; k += 4) {
      const int4 q = *reinterpret_cast<const int4*>(p + k);
      pack.v[k] = q.x, pack.v[k + 1] = q.y, pack.v[k + 2] = q.z, pack.v[k + 3] = q.w;
    }
  }
  return pack;
}

template <int W>
__device__ inline void store_ints(std::int32_t* p, const IntPack<W>& pack) {
  if constexpr (W == 1) {
    *p = pack.v[0];
  } else {
    static_assert(W % 4 == 0);
#pragma unroll
    for (int k = 0; k < W; k += 4) {
      *reinterpret_cast<int4*>(p + k) = int4{pack.v[k], pack.v[k + 1], pack.v[k + 2], pack.v[k + 3]};
    }
  }
}

// Of bf16 also 8 bytes at a time (W = 4), beside a pack of floats.
template <int W>
__device__ inline Pack<W> load_pack(const Bf16* p) {
  Pack<W> pack;
  if constexpr (W == 1) {
    pack.v[0] = widen(*p);
  } else if constexpr (W == 4) {
    const uint2 q = *reinterpret_cast<const uint2*>(p);
    pack.v[0] = __uint_as_float(q.x << 16), pack.v[1] = __uint_as_float(q.x & 0xffff0000u);
    pack.v[2] = __uint_as_float(q.y << 16), pack.v[3] = __uint_as_float(q.y & 0xffff0000u);
  } else {
    static_assert(W == 8);
    const uint4 q = *reinterpret_cast<const uint4*>(p);
    const unsigned words[4] = {q.x, q.y, q.z, q.w};
#pragma unroll
    for (int k = 0; k < 4; ++k) {
      pack.v[2 * k] = __uint_as_float(words[k] << 16);
      pack.v[2 * k + 1] = __uint_as_float(words[k] & 0xffff0000u);
    }
  }
  return pack;
}

template <int W>
__device__ inline void store_pack(Bf16* p, const Pack<W>& pack) {
  if constexpr (W == 1) {
    *p = narrow<Bf16>(pack.v[0]);
  } else if constexpr (W == 4) {
    *reinterpret_cast<uint2*>(p) = uint2{pack_two(pack.v[0], pack.v[1]), pack_two(pack.v[2], pack.v[3])};
  } else {
    static_assert(W == 8);
    *reinterpret_cast<uint4*>(p) = uint4{pack_two(pack.v[0], pack.v[1]), pack_two(pack.v[2], pack.v[3]),
                                         pack_two(pack.v[4], pack.v[5]), pack_two(pack.v[6], pack.v[7])};
  }
}

}  // namespace gradflow::kernels::cuda
