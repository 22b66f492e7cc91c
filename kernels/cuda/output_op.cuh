// An activation that the launch names, for kernels that serve every op that saves its output: the branch is uniform
// over the grid, so it costs nothing beside memory. Arithmetic and rounding are those of the op itself.
#pragma once

#include "gradflow/kernels/pointwise_ops.h"
#include "kernels/cuda/simt.h"

namespace gradflow::kernels::cuda {

// Called as the structs of ops:: are. Launchers let no op pass that saves its input.
struct OutputOp {
  static constexpr Saves saves = Saves::y;
  PointwiseId id;

  template <class M>
  __device__ float forward(float x) const {
#define GRADFLOW_CASE(Op, name) \
  if (id == ops::Op::id) return ops::Op::forward<M>(x);
    GRADFLOW_FROM_OUTPUT_OPS(GRADFLOW_CASE)
#undef GRADFLOW_CASE
    return x;
  }

  template <class M>
  __device__ float backward(float y, float dy) const {
#define GRADFLOW_CASE(Op, name) \
  if (id == ops::Op::id) return ops::Op::backward<M>(y, dy);
    GRADFLOW_FROM_OUTPUT_OPS(GRADFLOW_CASE)
#undef GRADFLOW_CASE
    return dy;
  }

  __device__ bool saturated(float y) const {
#define GRADFLOW_CASE(Op, name) \
  if (id == ops::Op::id) return ops::Op::saturated(y);
    GRADFLOW_SATURATING_OPS(GRADFLOW_CASE)
#undef GRADFLOW_CASE
    return false;
  }
};

}  // namespace gradflow::kernels::cuda
