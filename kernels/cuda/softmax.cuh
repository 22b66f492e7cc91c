// Softmax cross-entropy, forward and backward in one launch: a warp for each row, or a part of one where
// there are few classes; any number of them. Lanes take packs where rows are a whole number of packs and
// aligned, else single logits. With m the row's largest logit and s = sum exp(x - m):
// loss = log s - (x[label] - m). Moves 8 bytes an element, 4 in bf16. A row of up to 1024 classes (128 in single
// logits) is read once and stays in registers; a longer one is read three times, the second and third time from the cache.
#pragma once

#include <cmath>
#include <cstdint>

#include "gradflow/kernels/backend.h"
#include "kernels/cuda/reduce.cuh"
#include "kernels/cuda/simt.h"
#include "kernels/cuda/storage.cuh"

namespace gradflow::kernels::cuda {

// The row maximum; NaN if there is one.
struct RowMax {
  float value;
  __device__ void merge(const RowMax& other) { value = max_or_nan(value, other.value); }
  __device__ RowMax from_lane(int offset) const { return {__shfl_down_sync(kAllLanes, value, offset)}; }
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
};

// A row as one of its lanes meets it, in three passes: take(i, pack, present) for its packs in order, i the pack's first
// class. Packs that are not present are there to fill up: a pass may look at them.

// In registers: what a pass makes of a pack is what the next one sees.
template <int W>
inline constexpr unsigned kRowPacks = W > 1 ? 32 / W : 4;

template <int W_, class S>
class HeldRow {
 public:
  static constexpr int W = W_;
  static constexpr bool kHeld = true;
  using Index = unsigned;

  // Each lane has 1 to kRowPacks packs of its own, none more than `held`.
  __device__ HeldRow(const RowLanes& row, const S* x, unsigned held)
      : lanes_(row.lanes), first_(row.index()), packs_(static_cast<unsigned>(row.classes) / W), held_(held) {
    if (packs_ != 0) {
#pragma unroll
      for (unsigned u = 0; u < kRowPacks<W>; ++u) {
        if (u < held_) pack_[u] = load_pack<W>(x + W * (present(u) ? place(u) : first_));
      }
    } else {
#pragma unroll
      for (unsigned u = 0; u < kRowPacks<W>; ++u) pack_[u] = {};
    }
  }

  template <class Take>
  __device__ void pass(const Take& take) {
#pragma unroll
    for (unsigned u = 0; u < kRowPacks<W>; ++u) {
      if (u < held_) take(W * place(u), pack_[u], present(u));
    }
  }

 private:
  __device__ unsigned place(unsigned u) const { return first_ + u * lanes_; }
  __device__ bool present(unsigned u) const { return place(u) < packs_; }

  unsigned lanes_, first_, packs_, held_;
  Pack<W> pack_[kRowPacks<W>];
};

// From memory, each time; some packs are loaded before the first is used.
template <int W_, class S>
class StreamedRow {
 public:
  static constexpr int W = W_;
  static constexpr bool kHeld = false;
  using Index = std::size_t;

  __device__ StreamedRow(const RowLanes& row, const S* x, unsigned) : row_(row), x_(x) {}

  template <class Take>
  __device__ void pass(const Take& take) const {
    constexpr int N = kPacksHeld<W>;
    const std::size_t packs = row_.classes / W, lanes = row_.lanes;
    std::size_t p = row_.index();
    for (; p + (N - 1) * lanes < packs; p += N * lanes) {
      Pack<W> in[N];
#pragma unroll
      for (int u = 0; u < N; ++u) in[u] = load_pack<W>(x_ + W * (p + u * lanes));
#pragma unroll
      for (int u = 0; u < N; ++u) take(W * (p + u * lanes), in[u], true);
    }
    for (; p < packs; p += lanes) {
      Pack<W> in = load_pack<W>(x_ + W * p);
      take(W * p, in, true);
    }
  }

 private:
  const RowLanes& row_;
  const S* x_;
};

// One row; adds to `partial` in the first of its lanes. A label outside [0, classes) gives a loss of NaN.
template <class Row, class S>
__device__ inline void softmax_row(const RowLanes& lanes, unsigned held, const S* x, S* dx, std::int32_t label,
                                   double per_row, LossPartial& partial) {
  using Index = typename Row::Index;
  constexpr int W = Row::W;
  const auto classes = static_cast<Index>(lanes.classes);
  const Index own_class = label < 0 ? classes : static_cast<Index>(label);
  // Read by the lane that may write its gradient over it.
  const auto own_lane = static_cast<unsigned>(own_class / W) % lanes.lanes;
  float own_logit = 0.0f;
  if (own_class < classes && lanes.index() == own_lane) own_logit = widen(x[own_class]);
  Row row(lanes, x, held);
  RowMax max{__uint_as_float(0xff800000u)};  // -infinity
  row.pass([&](Index, const Pack<W>& logits, bool) {  // what fills up is the lane's own
#pragma unroll
    for (int k = 0; k < W; ++k) max.value = max_or_nan(max.value, logits.v[k]);
  });
  const float largest = lanes.from_first(lanes.reduce(max).value);
  own_logit = lanes.from(own_lane, own_logit);
  const bool own_largest = own_class < classes && own_logit == largest;
  RowSum sum{0.0, 0u};
  row.pass([&](Index i, Pack<W>& values, bool present) {
    bool largest_here = false;
#pragma unroll
    for (int k = 0; k < W; ++k) largest_here |= values.v[k] == largest;
    if (largest_here && i < own_class) {  // of equal logits the first is the prediction
#pragma unroll
      for (int k = 0; k < W; ++k) sum.earlier |= i + k < own_class && values.v[k] == largest;
    }
    const float off = present ? largest : __uint_as_float(0x7f800000u);  // exp(x - infinity) adds nothing
#pragma unroll
    for (int k = 0; k < W; ++k) {
      values.v[k] = expf(values.v[k] - off);
      sum.value += values.v[k];
    }
  });
  sum = lanes.reduce(sum);
  const double total = lanes.from_first(sum.value);
  if (lanes.index() == 0 && classes != 0) {
    const double own = own_class < classes ? static_cast<double>(own_logit) - static_cast<double>(largest)
                                           : __longlong_as_double(0x7ff8000000000000ll);
    partial.loss += log(total) - own;
    partial.correct += own_largest && sum.earlier == 0;
  }
  if (dx == nullptr) return;
  const double inverse = 1.0 / total;
  const auto factor = static_cast<float>(per_row * inverse);
  // In f64 for the label's class, where softmax - 1 cancels when the net is sure.
  const auto own_gradient = static_cast<float>((expf(own_logit - largest) * inverse - 1.0) * per_row);
  row.pass([&](Index i, Pack<W>& values, bool present) {
    if (!present) return;
    Pack<W> out;
#pragma unroll
    for (int k = 0; k < W; ++k) {
      if constexpr (Row::kHeld) {
        out.v[k] = values.v[k] * factor;
      } else {
        out.v[k] = expf(values.v[k] - largest) * factor;
      }
    }
    const Index at = own_class - i;
    if (at < W) {
#pragma unroll
      for (int k = 0; k < W; ++k) out.v[k] = k == static_cast<int>(at) ? own_gradient : out.v[k];
    }
    store_pack(dx + i, out);
  });
}

struct SoftmaxRows {
  std::size_t rows, classes;
  unsigned lanes;  // that share a row
  unsigned held;   // packs of it that a lane keeps in registers, at most kRowPacks; 0: the row is streamed
};

template <class Row, class S>
__device__ inline LossPartial softmax_rows(const S* logits, const std::int32_t* labels, S* dlogits,
                                           const SoftmaxRows& of) {
  const std::size_t rows = of.rows, classes = of.classes;
  const unsigned lanes = of.lanes;
  const std::size_t rows_of_warp = 32 / lanes;
  const std::size_t step = std::size_t{gridDim.x} * (blockDim.x / 32) * rows_of_warp;
  const double per_row = 1.0 / static_cast<double>(rows);
  LossPartial partial{0.0, 0};
  std::size_t first = (std::size_t{blockIdx.x} * (blockDim.x / 32) + threadIdx.x / 32) * rows_of_warp;
  for (; first < rows; first += step) {  // whole warps go on together
    const std::size_t row = first + threadIdx.x % 32 / lanes;
    const bool inside = row < rows;
    softmax_row<Row>(RowLanes{lanes, inside ? classes : 0}, of.held, logits + row * classes,
                     dlogits != nullptr ? dlogits + row * classes : nullptr, inside ? labels[row] : 0, per_row,
                     partial);
  }
  return partial;
}

template <int W, class S>
__device__ inline LossPartial softmax_cross_entropy(const S* logits, const std::int32_t* labels, S* dlogits,
                                                    const SoftmaxRows& of) {
  return of.held != 0 ? softmax_rows<HeldRow<W, S>>(logits, labels, dlogits, of)
                      : softmax_rows<StreamedRow<W, S>>(logits, labels, dlogits, of);
}

__device__ inline void add_loss(LossPartial partial, std::size_t rows, LossResult* result,
                                const ReductionScratch& scratch) {
  if (!grid_reduce(partial, scratch) || result == nullptr) return;
  result->loss_sum += partial.loss;
  result->rows += rows;
  result->correct += partial.correct;
}

// `vector`: classes are a whole number of packs and both arrays start at a multiple of 16 bytes.
#define GRADFLOW_SOFTMAX_KERNEL(S, s)                                                                   \
  extern "C" __global__ void __launch_bounds__(kBlockThreads) softmax_cross_entropy_##s(                \
      const S* logits, const std::int32_t* labels, S* dlogits, SoftmaxRows of, bool vector,             \
      LossResult* result, ReductionScratch scratch) {                                                   \
    add_loss(vector ? softmax_cross_entropy<kPackOf<S>>(logits, labels, dlogits, of)                    \
                    : softmax_cross_entropy<1>(logits, labels, dlogits, of),                            \
             of.rows, result, scratch);                                                                 \
  }

GRADFLOW_SOFTMAX_KERNEL(float, f32)
GRADFLOW_SOFTMAX_KERNEL(Bf16, bf16)

#undef GRADFLOW_SOFTMAX_KERNEL

}  // namespace gradflow::kernels::cuda
