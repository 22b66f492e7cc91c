// Bias and activation in one pass over a matrix, and their backward with the bias gradient in the same pass.
//   bias_<op>_forward_f32, bias_<op>_backward_f32, and so on in bf16
// Bytes moved per element in f32: forward 8, backward 12; half of that in bf16. Separate kernels would move 16 and 16.
//
// A thread keeps its columns, a pack of them where rows are aligned, and walks down the rows: so the bias is
// read once and the column sums stay in registers. kTileColumns columns to a block give a warp 2 to 4 lines of
// 256 or 128 bytes.
#pragma once

#include "kernels/cuda/columns.cuh"
#include "kernels/cuda/storage.cuh"
#include "kernels/cuda/stream.cuh"

namespace gradflow::kernels::cuda {

template <class Op, class S, int W>
struct BiasForwardBody {
  const S* x;  // of this thread's first column, row 0
  S* y;
  std::size_t columns;
  Pack<W> bias;

  __device__ Pack<W> load(std::size_t row) const { return load_pack<W>(x + row * columns); }

  __device__ void store(std::size_t row, const Pack<W>& in) const {
    Pack<W> out;
#pragma unroll
    for (int k = 0; k < W; ++k) out.v[k] = Op::template forward<Math>(in.v[k] + bias.v[k]);
    store_pack(y + row * columns, out);
  }
};

template <class Op, class S, int W>
__device__ inline void bias_forward(const S* x, const float* bias, S* y, std::size_t rows, std::size_t columns) {
  const std::size_t column = W * (std::size_t{blockIdx.x} * blockDim.x + threadIdx.x);
  if (column >= columns) return;
  BiasForwardBody<Op, S, W> body{x + column, y + column, columns, load_pack<W>(bias + column)};
  walk_rows<4>(rows, body);
}

template <class Op, class S, int W>
struct BiasBackwardBody {
  static constexpr bool kFromInput = Op::saves == Saves::x;
  const S* saved;
  const S* dy;
  S* dx;
  std::size_t columns;
  Pack<W> bias;  // where the op needs its input, x + bias
  ColumnSums<W> sums;

  struct Loaded {
    Pack<W> saved, dy;
  };
  __device__ Loaded load(std::size_t row) const {
    return {load_pack<W>(saved + row * columns), load_pack<W>(dy + row * columns)};
  }

  __device__ void store(std::size_t row, const Loaded& in) {
    Pack<W> out;
#pragma unroll
    for (int k = 0; k < W; ++k) {
      const float at = kFromInput ? in.saved.v[k] + bias.v[k] : in.saved.v[k];
      out.v[k] = Op::template backward<Math>(at, in.dy.v[k]);
      sums.of[k] += as_stored<S>(out.v[k]);
    }
    store_pack(dx + row * columns, out);
  }
};

template <class Op, class S, int W>
__device__ inline void bias_backward(const S* saved, const float* bias, const S* dy, S* dx, float* dbias,
                                     std::size_t rows, std::size_t columns, bool accumulate,
                                     const ReductionScratch& scratch) {
  using Body = BiasBackwardBody<Op, S, W>;
  const std::size_t column = W * (std::size_t{blockIdx.x} * blockDim.x + threadIdx.x);
  const bool inside = column < columns;
  ColumnSums<W> sums{};
  if (inside) {
    Body body{saved + column, dy + column, dx + column, columns, {}, {}};
    if constexpr (Body::kFromInput) body.bias = load_pack<W>(bias + column);
    walk_rows<2>(rows, body);
    sums = body.sums;
  }
  if (dbias == nullptr) return;
  add_over_grid(sums, inside, scratch, [=](const ColumnSums<W>& total) {
#pragma unroll
    for (int k = 0; k < W; ++k) {
      const double old = accumulate ? static_cast<double>(dbias[column + k]) : 0.0;
      dbias[column + k] = static_cast<float>(old + total.of[k]);
    }
  });
}

// `vector`: rows are a whole number of packs and every array starts at a multiple of 16 bytes.
#define GRADFLOW_BIAS_KERNELS_IN(Op, op, S, s)                                                               \
  extern "C" __global__ void __launch_bounds__(kBlockThreads) bias_##op##_forward_##s(                       \
      const S* x, const float* bias, S* y, std::size_t rows, std::size_t columns, bool vector) {             \
    if (vector) {                                                                                            \
      bias_forward<ops::Op, S, kPackOf<S>>(x, bias, y, rows, columns);                                       \
    } else {                                                                                                 \
      bias_forward<ops::Op, S, 1>(x, bias, y, rows, columns);                                                \
    }                                                                                                        \
  }                                                                                                          \
  extern "C" __global__ void __launch_bounds__(kBlockThreads) bias_##op##_backward_##s(                      \
      const S* saved, const float* bias, const S* dy, S* dx, float* dbias, std::size_t rows,                 \
      std::size_t columns, bool vector, bool accumulate, ReductionScratch scratch) {                         \
    if (vector) {                                                                                            \
      bias_backward<ops::Op, S, kPackOf<S>>(saved, bias, dy, dx, dbias, rows, columns, accumulate, scratch); \
    } else {                                                                                                 \
      bias_backward<ops::Op, S, 1>(saved, bias, dy, dx, dbias, rows, columns, accumulate, scratch);          \
    }                                                                                                        \
  }
#define GRADFLOW_BIAS_KERNELS(Op, op)           \
  GRADFLOW_BIAS_KERNELS_IN(Op, op, float, f32) \
  GRADFLOW_BIAS_KERNELS_IN(Op, op, Bf16, bf16)

GRADFLOW_POINTWISE_OPS(GRADFLOW_BIAS_KERNELS)

#undef GRADFLOW_BIAS_KERNELS
#undef GRADFLOW_BIAS_KERNELS_IN

}  // namespace gradflow::kernels::cuda
