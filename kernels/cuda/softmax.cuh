// Softmax cross-entropy, forward and backward in one launch: a warp for each row, or a part of one where
// there are few classes; any number of them. Lanes take packs where rows are a whole number of packs and
// aligned, else single logits; four of them are in flight, or two packs of eight. With m the row's largest
// logit and s = sum exp(x - m):  loss = log s - (x[label] - m). Moves 8 bytes an element, 4 in bf16; a row is
// read three times, the second and third time from the cache.
#pragma once

#include <cmath>
#include <cstdint>

#include "gradflow/kernels/backend.h"
#include "kernels/cuda/reduce.cuh"
#include "kernels/cuda/simt.h"
#include "kernels/cuda/storage.cuh"

namespace gradflow::kernels::cuda {

// The row maximum, and whether a NaN was seen, which it leaves out.
struct RowScan {
  float largest;
  unsigned nan;

  __device__ void see(float x) {
    largest = fmaxf(largest, x);
    nan |= x != x;
  }
  __device__ void merge(const RowScan& other) {
    largest = fmaxf(largest, other.largest);
    nan |= other.nan;
  }
  __device__ RowScan from_lane(int offset) const {
    return {__shfl_down_sync(kAllLanes, largest, offset), __shfl_down_sync(kAllLanes, nan, offset)};
  }
};

// The sum of exponentials, and whether a logit before the label's is as large as that.
struct RowSum {
  double value;
  unsigned earlier;
  __device__ void merge(const RowSum& other) {
    value += other.value;
    earlier |= other.earlier;
  }
  __device__ RowSum from_lane(int offset) const {
    return {__shfl_down_sync(kAllLanes, value, offset), __shfl_down_sync(kAllLanes, earlier, offset)};
  }
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

// Neighboring lanes of a warp that share a row: `lanes` of them, a power of two; `classes` is 0 where no row
// is left for them. They take part in every shuffle of the warp.
struct RowLanes {
  unsigned lanes;
  std::size_t classes;

  __device__ unsigned index() const { return threadIdx.x % lanes; }

  // The result is valid in the first of them.
  template <class P>
  __device__ P reduce(P mine) const {
    for (unsigned offset = lanes / 2; offset > 0; offset /= 2)
      mine.merge(mine.from_lane(static_cast<int>(offset)));
    return mine;
  }
  template <class T>
  __device__ T from(unsigned lane, T value) const {
    return __shfl_sync(kAllLanes, value, static_cast<int>(threadIdx.x % 32 / lanes * lanes) + static_cast<int>(lane));
  }
  template <class T>
  __device__ T from_first(T value) const {
    return from(0, value);
  }

  // take(i, pack) for this lane's packs of x, in order; some of them are loaded first.
  template <int W, class S, class Take>
  __device__ void walk(const S* x, const Take& take) const {
    constexpr int N = kPacksHeld<W>;
    const std::size_t packs = classes / W;
    for (std::size_t p = index(); p < packs; p += N * lanes) {
      Pack<W> in[N];
#pragma unroll
      for (int u = 0; u < N; ++u) {
        if (p + u * lanes < packs) in[u] = load_pack<W>(x + W * (p + u * lanes));
      }
#pragma unroll
      for (int u = 0; u < N; ++u) {
        if (p + u * lanes < packs) take(W * (p + u * lanes), in[u]);
      }
    }
  }
};

// One row; adds to `partial` in the first of its lanes. A label outside [0, classes) gives a loss of NaN.
template <int W, class S>
__device__ inline void softmax_row(const RowLanes& row, const S* x, S* dx, std::int32_t label, double per_row,
                                   LossPartial& partial) {
  const std::size_t own_class = label < 0 ? row.classes : static_cast<std::size_t>(label);
  // Read by the lane that may write its gradient over it.
  const auto own_lane = static_cast<unsigned>(own_class / W) % row.lanes;
  float own_logit = 0.0f;
  if (own_class < row.classes && row.index() == own_lane) own_logit = widen(x[own_class]);
  RowScan scan{__uint_as_float(0xff800000u), 0u};  // -infinity
  row.template walk<W>(x, [&](std::size_t, const Pack<W>& logits) {
#pragma unroll
    for (int k = 0; k < W; ++k) scan.see(logits.v[k]);
  });
  scan = row.reduce(scan);
  own_logit = row.from(own_lane, own_logit);
  const bool any_nan = row.from_first(scan.nan) != 0;
  const float first_largest = row.from_first(scan.largest);
  const float largest = any_nan ? __uint_as_float(0x7fc00000u) : first_largest;
  const bool own_largest = own_class < row.classes && own_logit == largest;
  RowSum sum{0.0, 0u};
  row.template walk<W>(x, [&](std::size_t, const Pack<W>& logits) {
#pragma unroll
    for (int k = 0; k < W; ++k) sum.value += expf(logits.v[k] - largest);
  });
  if (own_largest) {  // of equal logits the first is the prediction
    const RowLanes up_to_label{row.lanes, (own_class / W + 1) * W};
    up_to_label.template walk<W>(x, [&](std::size_t i, const Pack<W>& logits) {
#pragma unroll
      for (int k = 0; k < W; ++k) sum.earlier |= i + k < own_class && logits.v[k] == largest;
    });
  }
  sum = row.reduce(sum);
  const double total = row.from_first(sum.value);
  if (row.index() == 0 && row.classes != 0) {
    const double own = own_class < row.classes ? static_cast<double>(own_logit) - static_cast<double>(largest)
                                               : __longlong_as_double(0x7ff8000000000000ll);
    partial.loss += log(total) - own;
    partial.correct += own_largest && sum.earlier == 0;
  }
  if (dx == nullptr) return;
  const double inverse = 1.0 / total;
  const auto factor = static_cast<float>(per_row * inverse);
  // In f64 for the label's class, where softmax - 1 cancels when the net is sure.
  const auto own_gradient = static_cast<float>((expf(own_logit - largest) * inverse - 1.0) * per_row);
  row.template walk<W>(x, [&](std::size_t i, const Pack<W>& logits) {
    Pack<W> out;
#pragma unroll
    for (int k = 0; k < W; ++k) out.v[k] = expf(logits.v[k] - largest) * factor;
    const std::size_t at = own_class - i;
    if (at < W) {
#pragma unroll
      for (int k = 0; k < W; ++k) {
        if (k == static_cast<int>(at)) out.v[k] = own_gradient;
      }
    }
    store_pack(dx + i, out);
  });
}

template <int W, class S>
__device__ inline void softmax_cross_entropy(const S* logits, const std::int32_t* labels, S* dlogits,
                                             std::size_t rows, std::size_t classes, unsigned lanes,
                                             LossResult* result, const ReductionScratch& scratch) {
  const std::size_t rows_of_warp = 32 / lanes;
  const std::size_t step = std::size_t{gridDim.x} * (blockDim.x / 32) * rows_of_warp;
  const double per_row = 1.0 / static_cast<double>(rows);
  LossPartial partial{0.0, 0};
  std::size_t first = (std::size_t{blockIdx.x} * (blockDim.x / 32) + threadIdx.x / 32) * rows_of_warp;
  for (; first < rows; first += step) {  // whole warps go on together
    const std::size_t row = first + threadIdx.x % 32 / lanes;
    const bool inside = row < rows;
    softmax_row<W>(RowLanes{lanes, inside ? classes : 0}, logits + row * classes,
                   dlogits != nullptr ? dlogits + row * classes : nullptr, inside ? labels[row] : 0, per_row,
                   partial);
  }
  if (grid_reduce(partial, scratch) && result != nullptr) {
    result->loss_sum += partial.loss;
    result->rows += rows;
    result->correct += partial.correct;
  }
}

// `vector`: classes are a whole number of packs and both arrays start at a multiple of 16 bytes. `lanes`
// share a row.
#define GRADFLOW_SOFTMAX_KERNEL(S, s)                                                                    \
  extern "C" __global__ void __launch_bounds__(kBlockThreads) softmax_cross_entropy_##s(                 \
      const S* logits, const std::int32_t* labels, S* dlogits, std::size_t rows, std::size_t classes,    \
      bool vector, unsigned lanes, LossResult* result, ReductionScratch scratch) {                       \
    if (vector) {                                                                                        \
      softmax_cross_entropy<kPackOf<S>>(logits, labels, dlogits, rows, classes, lanes, result, scratch); \
    } else {                                                                                             \
      softmax_cross_entropy<1>(logits, labels, dlogits, rows, classes, lanes, result, scratch);          \
    }                                                                                                    \
  }

GRADFLOW_SOFTMAX_KERNEL(float, f32)
GRADFLOW_SOFTMAX_KERNEL(Bf16, bf16)

#undef GRADFLOW_SOFTMAX_KERNEL

}  // namespace gradflow::kernels::cuda
