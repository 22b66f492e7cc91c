// Softmax cross-entropy, forward and backward in one launch: a warp for each row, any number of classes.
// With m the row's largest logit and s = sum exp(x - m):  loss = log s - (x[label] - m).
// Moves 8 bytes an element, 4 in bf16; a row is read three times, the second and third time from the cache.
#pragma once

#include <cstdint>

#include "gradflow/kernels/backend.h"
#include "kernels/cuda/reduce.cuh"
#include "kernels/cuda/simt.h"
#include "kernels/cuda/storage.cuh"

namespace gradflow::kernels::cuda {

// The row maximum and where it is first, whether a NaN was seen, and the label's logit on its way from the
// one lane that read it. `index` is SIZE_MAX until a logit has been seen.
struct RowScan {
  float largest;
  float own;
  unsigned long long index;
  unsigned nan;

  __device__ void see(float x, std::size_t i) {
    if (index == ~0ull || x > largest || (x == largest && i < index)) {
      largest = x;
      index = i;
    }
    nan |= x != x;
  }
  __device__ void merge(const RowScan& other) {
    if (other.index != ~0ull &&
        (index == ~0ull || other.largest > largest || (other.largest == largest && other.index < index))) {
      largest = other.largest;
      index = other.index;
    }
    nan |= other.nan;
    own += other.own;  // 0 in every lane but one
  }
  __device__ RowScan from_lane(int offset) const {
    return {__shfl_down_sync(kAllLanes, largest, offset), __shfl_down_sync(kAllLanes, own, offset),
            __shfl_down_sync(kAllLanes, index, offset), __shfl_down_sync(kAllLanes, nan, offset)};
  }
};

struct DoubleSum {
  double value;
  __device__ void merge(const DoubleSum& other) { value += other.value; }
  __device__ DoubleSum from_lane(int offset) const { return {__shfl_down_sync(kAllLanes, value, offset)}; }
};

struct LossPartial {
  double loss;
  unsigned long long correct;
  __device__ void merge(const LossPartial& other) {
    loss += other.loss;
    correct += other.correct;
  }
  __device__ LossPartial from_lane(int offset) const {
    return {__shfl_down_sync(kAllLanes, loss, offset), __shfl_down_sync(kAllLanes, correct, offset)};
  }
};

// One row by one warp; adds to `partial` in lane 0. A label outside [0, classes) gives a loss of NaN.
template <class S>
__device__ inline void softmax_row(const S* x, S* dx, std::size_t classes, std::int32_t label, double per_row,
                                   LossPartial& partial) {
  const unsigned lane = threadIdx.x % 32;
  const std::size_t own_class = label < 0 ? classes : static_cast<std::size_t>(label);
  RowScan scan{0.0f, 0.0f, ~0ull, 0u};
  for (std::size_t i = lane; i < classes; i += 32) {
    const float logit = widen(x[i]);
    scan.see(logit, i);
    if (i == own_class) scan.own = logit;
  }
  scan = warp_reduce(scan);
  const bool any_nan = __shfl_sync(kAllLanes, scan.nan, 0) != 0;
  const float largest = any_nan ? __uint_as_float(0x7fc00000u) : __shfl_sync(kAllLanes, scan.largest, 0);
  DoubleSum sum{0.0};
  for (std::size_t i = lane; i < classes; i += 32) sum.value += expf(widen(x[i]) - largest);
  sum = warp_reduce(sum);
  const double total = __shfl_sync(kAllLanes, sum.value, 0);
  if (lane == 0) {
    const double own = own_class < classes ? static_cast<double>(scan.own) - static_cast<double>(largest)
                                           : __longlong_as_double(0x7ff8000000000000ll);
    partial.loss += log(total) - own;
    partial.correct += !any_nan && scan.index == own_class;
  }
  if (dx == nullptr) return;
  const auto factor = static_cast<float>(per_row / total);
  for (std::size_t i = lane; i < classes; i += 32) {
    const float e = expf(widen(x[i]) - largest);
    // In f64 for the label's class, where softmax - 1 cancels when the net is sure.
    dx[i] = narrow<S>(i == own_class ? static_cast<float>((e / total - 1.0) * per_row) : e * factor);
  }
}

template <class S>
__device__ inline void softmax_cross_entropy(const S* logits, const std::int32_t* labels, S* dlogits,
                                             std::size_t rows, std::size_t classes, LossResult* result,
                                             const ReductionScratch& scratch) {
  const std::size_t warps = std::size_t{gridDim.x} * (blockDim.x / 32);
  const double per_row = 1.0 / static_cast<double>(rows);
  LossPartial partial{0.0, 0};
  for (std::size_t row = std::size_t{blockIdx.x} * (blockDim.x / 32) + threadIdx.x / 32; row < rows;
       row += warps) {
    softmax_row(logits + row * classes, dlogits != nullptr ? dlogits + row * classes : nullptr, classes,
                labels[row], per_row, partial);
  }
  if (grid_reduce(partial, scratch) && result != nullptr) {
    result->loss_sum += partial.loss;
    result->rows += rows;
    result->correct += partial.correct;
  }
}

#define GRADFLOW_SOFTMAX_KERNEL(S, s)                                                                         \
  extern "C" __global__ void __launch_bounds__(kBlockThreads)                                                 \
      softmax_cross_entropy_##s(const S* logits, const std::int32_t* labels, S* dlogits, std::size_t rows,    \
                                std::size_t classes, LossResult* result, ReductionScratch scratch) {          \
    softmax_cross_entropy(logits, labels, dlogits, rows, classes, result, scratch);                           \
  }

GRADFLOW_SOFTMAX_KERNEL(float, f32)
GRADFLOW_SOFTMAX_KERNEL(Bf16, bf16)

#undef GRADFLOW_SOFTMAX_KERNEL

}  // namespace gradflow::kernels::cuda
