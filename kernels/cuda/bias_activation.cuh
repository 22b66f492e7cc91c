// Bias and activation in one pass over a matrix, and their backward with the bias gradient in the same pass.
//   bias_<op>_forward_f32, bias_<op>_backward_f32, and so on in bf16
//   bias_forward_stats_f32, bias_backward_stats_f32...: the same of any op that saves its output, measured
// Bytes moved per element in f32: forward 8, backward 12; half of that in bf16. Separate kernels would move 16 and 16.
//
// A thread keeps its columns, a pack of them where rows are aligned, and walks down the rows: so the bias is
// read once and the column sums stay in registers. kTileColumns columns to a block give a warp 2 to 4 lines of
// 256 or 128 bytes.
#pragma once

#include "kernels/cuda/columns.cuh"
#include "kernels/cuda/measured.cuh"
#include "kernels/cuda/output_op.cuh"
#include "kernels/cuda/storage.cuh"
#include "kernels/cuda/stream.cuh"

namespace gradflow::kernels::cuda {

// With statistics, 4 columns to a thread in bf16, too: the sums of 8 would not fit in its registers beside them.
inline constexpr int kMeasuredPack = 4;

template <class Op, class S, int W, int kMeasured>
struct BiasForwardBody {
  Op op;
  const S* x;  // of this thread's first column, row 0
  S* y;
  std::size_t columns;
  Pack<W> bias;
  Measured<kMeasured, InPlane>& measured;

  __device__ Pack<W> load(std::size_t row) const { return load_pack<W>(x + row * columns); }

  __device__ void store(std::size_t row, const Pack<W>& in) {
    Pack<W> out;
    with_op(op, [&]<class One>(const One&) {
#pragma unroll
      for (int k = 0; k < W; ++k) out.v[k] = One::template forward<Math>(in.v[k] + bias.v[k]);
    });
    store_pack(y + row * columns, out);
    if constexpr (kMeasured > 0) {
      Pack<W> z;
#pragma unroll
      for (int k = 0; k < W; ++k) z.v[k] = as_stored<S>(in.v[k] + bias.v[k]), out.v[k] = as_stored<S>(out.v[k]);
      measured.add(0, z);
      measured.add(1, out, op);
    }
  }
};

template <class S, int W, class Op, int kMeasured>
__device__ inline void bias_forward(const Op& op, const S* x, const float* bias, S* y, std::size_t rows,
                                    std::size_t columns, Measured<kMeasured, InPlane> measured,
                                    const ReductionScratch& for_sinks) {
  measured.begin();
  const std::size_t column = W * (std::size_t{blockIdx.x} * blockDim.x + threadIdx.x);
  if (column < columns) {
    BiasForwardBody<Op, S, W, kMeasured> body{op,      x + column, y + column, columns, load_pack<W>(bias + column),
                                              measured};
    walk_rows<kMeasured == 0 ? 4 : 1>(rows, body);
  }
  measured.finish(rows * columns, for_sinks);
}

template <class Op, class S, int W, int kMeasured>
struct BiasBackwardBody {
  Op op;
  static constexpr bool kFromInput = Op::saves == Saves::x;
  const S* saved;
  const S* dy;
  S* dx;
  std::size_t columns;
  Pack<W> bias;  // where the op needs its input, x + bias
  ColumnSums<W> sums;
  Measured<kMeasured, InPlane>& measured;

  struct Loaded {
    Pack<W> saved, dy;
  };
  __device__ Loaded load(std::size_t row) const {
    return {load_pack<W>(saved + row * columns), load_pack<W>(dy + row * columns)};
  }

  __device__ void store(std::size_t row, const Loaded& in) {
    Pack<W> out;
    with_op(op, [&]<class One>(const One&) {
#pragma unroll
      for (int k = 0; k < W; ++k) {
        const float at = kFromInput ? in.saved.v[k] + bias.v[k] : in.saved.v[k];
        out.v[k] = One::template backward<Math>(at, in.dy.v[k]);
      }
    });
#pragma unroll
    for (int k = 0; k < W; ++k) sums.of[k] += as_stored<S>(out.v[k]);
    store_pack(dx + row * columns, out);
    if constexpr (kMeasured > 0) {
#pragma unroll
      for (int k = 0; k < W; ++k) out.v[k] = as_stored<S>(out.v[k]);
      measured.add(0, in.dy);
      measured.add(1, out);
    }
  }
};

template <class S, int W, class Op, int kMeasured>
__device__ inline void bias_backward(const Op& op, const S* saved, const float* bias, const S* dy, S* dx, float* dbias,
                                     std::size_t rows, std::size_t columns, bool accumulate,
                                     const ReductionScratch& scratch, Measured<kMeasured, InPlane> measured,
                                     const ReductionScratch& for_sinks) {
  using Body = BiasBackwardBody<Op, S, W, kMeasured>;
  measured.begin();
  const std::size_t column = W * (std::size_t{blockIdx.x} * blockDim.x + threadIdx.x);
  const bool inside = column < columns;
  ColumnSums<W> sums{};
  if (inside) {
    Body body{op, saved + column, dy + column, dx + column, columns, {}, {}, measured};
    if constexpr (Body::kFromInput) body.bias = load_pack<W>(bias + column);
    walk_rows<kMeasured == 0 ? 2 : 1>(rows, body);
    sums = body.sums;
  }
  if (dbias != nullptr) {
    add_over_grid(sums, inside, scratch, [=](const ColumnSums<W>& total) {
#pragma unroll
      for (int k = 0; k < W; ++k) {
        const double old = accumulate ? static_cast<double>(dbias[column + k]) : 0.0;
        dbias[column + k] = static_cast<float>(old + total.of[k]);
      }
    });
  }
  measured.finish(rows * columns, for_sinks);
}

// `vector`: rows are a whole number of packs and every array starts at a multiple of 16 bytes.
#define GRADFLOW_BIAS_KERNELS_IN(Op, op, S, s)                                                               \
  extern "C" __global__ void __launch_bounds__(kBlockThreads) bias_##op##_forward_##s(                       \
      const S* x, const float* bias, S* y, std::size_t rows, std::size_t columns, bool vector) {             \
    if (vector) {                                                                                            \
      bias_forward<S, kPackOf<S>, ops::Op, 0>({}, x, bias, y, rows, columns, {}, {});                        \
    } else {                                                                                                 \
      bias_forward<S, 1, ops::Op, 0>({}, x, bias, y, rows, columns, {}, {});                                 \
    }                                                                                                        \
  }                                                                                                          \
  extern "C" __global__ void __launch_bounds__(kBlockThreads) bias_##op##_backward_##s(                      \
      const S* saved, const float* bias, const S* dy, S* dx, float* dbias, std::size_t rows,                 \
      std::size_t columns, bool vector, bool accumulate, ReductionScratch scratch) {                         \
    if (vector) {                                                                                            \
      bias_backward<S, kPackOf<S>, ops::Op, 0>({}, saved, bias, dy, dx, dbias, rows, columns, accumulate,    \
                                               scratch, {}, {});                                             \
    } else {                                                                                                 \
      bias_backward<S, 1, ops::Op, 0>({}, saved, bias, dy, dx, dbias, rows, columns, accumulate, scratch,    \
                                      {}, {});                                                               \
    }                                                                                                        \
  }
#define GRADFLOW_BIAS_KERNELS(Op, op)           \
  GRADFLOW_BIAS_KERNELS_IN(Op, op, float, f32) \
  GRADFLOW_BIAS_KERNELS_IN(Op, op, Bf16, bf16)

GRADFLOW_POINTWISE_OPS(GRADFLOW_BIAS_KERNELS)

#define GRADFLOW_BIAS_STATS_KERNELS(S, s)                                                                    \
  extern "C" __global__ void __launch_bounds__(kBlockThreads) bias_forward_stats_##s(                        \
      PointwiseId op, const S* x, const float* bias, S* y, std::size_t rows, std::size_t columns,            \
      bool vector, Sinks z_sinks, Sinks y_sinks, ReductionScratch for_sinks) {                               \
    const Measured<2, InPlane> measured{{z_sinks, y_sinks}, {}, {}};                                         \
    if (vector) {                                                                                            \
      bias_forward<S, kMeasuredPack>(OutputOp{op}, x, bias, y, rows, columns, measured, for_sinks);          \
    } else {                                                                                                 \
      bias_forward<S, 1>(OutputOp{op}, x, bias, y, rows, columns, measured, for_sinks);                      \
    }                                                                                                        \
  }                                                                                                          \
  extern "C" __global__ void __launch_bounds__(kBlockThreads) bias_backward_stats_##s(                       \
      PointwiseId op, const S* saved, const S* dy, S* dx, float* dbias, std::size_t rows,                    \
      std::size_t columns, bool vector, bool accumulate, ReductionScratch scratch, Sinks dy_sinks,           \
      Sinks dx_sinks, ReductionScratch for_sinks) {                                                          \
    const Measured<2, InPlane> measured{{dy_sinks, dx_sinks}, {}, {}};                                       \
    if (vector) {                                                                                            \
      bias_backward<S, kMeasuredPack>(OutputOp{op}, saved, nullptr, dy, dx, dbias, rows, columns,            \
                                      accumulate, scratch, measured, for_sinks);                             \
    } else {                                                                                                 \
      bias_backward<S, 1>(OutputOp{op}, saved, nullptr, dy, dx, dbias, rows, columns, accumulate, scratch,   \
                          measured, for_sinks);                                                              \
    }                                                                                                        \
  }

GRADFLOW_BIAS_STATS_KERNELS(float, f32)
GRADFLOW_BIAS_STATS_KERNELS(Bf16, bf16)

#undef GRADFLOW_BIAS_STATS_KERNELS
#undef GRADFLOW_BIAS_KERNELS
#undef GRADFLOW_BIAS_KERNELS_IN

}  // namespace gradflow::kernels::cuda
