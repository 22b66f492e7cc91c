// An activation that the launch names, for kernels that serve every op that saves its output: the branch is uniform
// over the grid, and taken once for a pack. Arithmetic and rounding are those of the op itself.
#pragma once

#include "gradflow/kernels/pointwise_ops.h"
#include "kernels/cuda/simt.h"

namespace gradflow::kernels::cuda {

// Launchers let no op pass that saves its input.
struct OutputOp {
  static constexpr Saves saves = Saves::y;
  PointwiseId id;

  // Calls f(op) with the op's own struct.
  template <class F>
  __device__ void visit(const F& f) const {
#define GRADFLOW_CASE(Op, name) \
  if (id == ops::Op::id) return f(ops::Op{});
    GRADFLOW_FROM_OUTPUT_OPS(GRADFLOW_CASE)
#undef GRADFLOW_CASE
    f(ops::Identity{});
  }
};

// Calls f(op) with the struct of ops:: that `op` is, or that an OutputOp names: for several numbers at a time, one
// branch for all of them.
template <class Op, class F>
__device__ inline void with_op(const Op& op, const F& f) {
  f(op);
}
template <class F>
__device__ inline void with_op(const OutputOp& op, const F& f) {
  op.visit(f);
}

}  // namespace gradflow::kernels::cuda
