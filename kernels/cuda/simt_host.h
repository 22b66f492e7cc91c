// CUDA's names for a plain C++ compiler: each CUDA thread is a fiber on one CPU thread
// (tests/simt/engine.cpp).
//
// Blocks run one after another, in an order drawn from a seed; so do the threads of a block, which give way
// to each other only where they wait: at __syncthreads and at warp collectives. What runs is the kernel's
// own source, under whatever sanitizer the build has. Shared memory, static and dynamic, starts as garbage in every
// block.
// Lanes of a warp meet in groups, one for each mask: branches that diverged may hold collectives of their own.
// Reported as errors, with file and line: threads of a block at different barriers, or some gone while
// others wait; lanes that name each other in different collectives (of another mask, kind or line), name one that has
// left, or are outside their mask; a block that waits for ever. Stricter than CUDA, where threads that have left count as
// arrived. Refused, too: a launch beyond a device's limits.
// A build with SIMT_RACES and ThreadSanitizer reports data races too, between threads of a block and between
// blocks, whatever the values are (tests/simt/happens_before.h).
// Not shown: weak memory order, blocks that wait for each other, speed. Needs no CUDA headers.
#pragma once

#include <atomic>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <source_location>
#include <type_traits>

#include "gradflow/kernels/bf16.h"

#define __global__
#define __device__
#define __host__
#define __launch_bounds__(...)

struct dim3 {
  unsigned x = 1, y = 1, z = 1;
};
struct uint3 {
  unsigned x = 0, y = 0, z = 0;
};
struct alignas(16) float4 {
  float x, y, z, w;
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};
struct alignas(16) int4 {
  int x, y, z, w;
};
struct alignas(8) uint2 {
  unsigned x, y;
};
struct __nv_bfloat16 {
  gradflow::Bf16 value;
};
struct alignas(4) __nv_bfloat162 {
  __nv_bfloat16 x, y;
};

inline uint3 threadIdx, blockIdx;
inline dim3 blockDim, gridDim;

namespace simt {

using Location = std::source_location;

// 0: blocks and threads in ascending order. Any other value draws an order.
void set_seed(std::uint64_t seed);

// For tests: told the name of every kernel that is run.
inline std::function<void(const char* kernel)> on_launch;

// Runs body once for each thread of the grid, with that much dynamic shared memory for a block. Throws
// std::logic_error where the kernel breaks a rule above.
void run(const char* kernel, const dim3& grid, const dim3& block, const std::function<void()>& body,
         std::size_t shared_bytes = 0);

// What kernels call through the macros and functions below.
void enter_shared(void* memory, std::size_t bytes);
void* dynamic_shared(const Location& where);
void fence();
void before_atomic(void* address);
void block_barrier(const Location& where);
enum class Collective : std::uint8_t { sync, shuffle, vote };
// shuffle: the 64 bits that lane `source` of this warp passed as `value` (its own for a lane beyond the warp);
// vote: a bit for each lane of the mask that passed anything but 0.
std::uint64_t warp_collective(Collective kind, unsigned mask, std::uint64_t value, unsigned source,
                              const Location& where);
unsigned lane();

// Blocks have shared memory in turn: copy block_slot() of kBlockSlots.
#ifdef SIMT_RACES
inline constexpr unsigned kBlockSlots = 3;
#else
inline constexpr unsigned kBlockSlots = 1;
#endif
unsigned block_slot();

template <class T>
T shuffle(unsigned mask, T value, unsigned source, const Location& where) {
  static_assert(std::is_trivially_copyable_v<T> && sizeof(T) <= 8);
  std::uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof value);
  bits = warp_collective(Collective::shuffle, mask, bits, source, where);
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

}  // namespace simt

#define SIMT_SHARED(type, name, ...)                       \
  typedef type name##_type __VA_ARGS__;                    \
  static name##_type name##_copies[::simt::kBlockSlots];   \
  name##_type& name = name##_copies[::simt::block_slot()]; \
  ::simt::enter_shared(&name, sizeof name)

// The same memory for every use in a block, as on the device; 16-byte aligned, of exactly the size of the launch.
#define SIMT_DYNAMIC_SHARED(type, name) \
  type* const name = static_cast<type*>(::simt::dynamic_shared(::simt::Location::current()))

inline void __syncthreads(const simt::Location& where = simt::Location::current()) {
  simt::block_barrier(where);
}

inline void __syncwarp(unsigned mask = 0xffffffffu, const simt::Location& where = simt::Location::current()) {
  simt::warp_collective(simt::Collective::sync, mask, 0, 0, where);
}

template <class T>
T __shfl_sync(unsigned mask, T value, int source, const simt::Location& where = simt::Location::current()) {
  return simt::shuffle(mask, value, static_cast<unsigned>(source) % 32, where);
}

template <class T>
T __shfl_down_sync(unsigned mask, T value, int delta,
                   const simt::Location& where = simt::Location::current()) {
  return simt::shuffle(mask, value, simt::lane() + static_cast<unsigned>(delta), where);
}

inline unsigned __ballot_sync(unsigned mask, int predicate, const simt::Location& where = simt::Location::current()) {
  return static_cast<unsigned>(simt::warp_collective(simt::Collective::vote, mask, predicate != 0, 0, where));
}

inline int __any_sync(unsigned mask, int predicate, const simt::Location& where = simt::Location::current()) {
  return __ballot_sync(mask, predicate, where) != 0;
}

inline int __all_sync(unsigned mask, int predicate, const simt::Location& where = simt::Location::current()) {
  return __ballot_sync(mask, predicate, where) == mask;
}

// Relaxed, as in CUDA: only a fence makes them order other accesses.
template <class T>
T atomicAdd(T* to, std::type_identity_t<T> value) {
  simt::before_atomic(to);
  return std::atomic_ref<T>(*to).fetch_add(value, std::memory_order_relaxed);
}

template <class T>
T atomicExch(T* to, std::type_identity_t<T> value) {
  simt::before_atomic(to);
  return std::atomic_ref<T>(*to).exchange(value, std::memory_order_relaxed);
}

template <class T>
void store_relaxed(T* to, T value) {
  std::atomic_ref<T>(*to).store(value, std::memory_order_relaxed);
}

inline void __threadfence() { simt::fence(); }

inline unsigned __float_as_uint(float x) { return std::bit_cast<unsigned>(x); }
inline float __uint_as_float(unsigned x) { return std::bit_cast<float>(x); }
inline long long __double_as_longlong(double x) { return std::bit_cast<long long>(x); }
inline double __longlong_as_double(long long x) { return std::bit_cast<double>(x); }
// As far off as the device's may be, so that tests see what becomes of it.
inline float near_reciprocal(float d) { return std::bit_cast<float>(std::bit_cast<unsigned>(1.0f / d) - 1u); }
inline float max_or_nan(float a, float b) {
  return std::isnan(a) || std::isnan(b) ? std::bit_cast<float>(0x7fffffffu) : std::fmax(a, b);
}
inline float __bfloat162float(__nv_bfloat16 x) { return gradflow::to_float(x.value); }
inline __nv_bfloat16 __float2bfloat16_rn(float x) { return {gradflow::to_bf16(x)}; }
inline __nv_bfloat162 __floats2bfloat162_rn(float x, float y) {
  return {__float2bfloat16_rn(x), __float2bfloat16_rn(y)};
}
inline int __clz(int x) { return std::countl_zero(static_cast<unsigned>(x)); }
