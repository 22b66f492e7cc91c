#include "gradflow/kernels/error.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/launchers.h"
#include "kernels/cuda/residual.cuh"

namespace gradflow::kernels::cuda {
namespace {

template <class S>
struct ResidualKernels {
  PointwiseId id;
  Kernel<const S*, const S*, S*, const Gates*, double, std::size_t, bool> forward;
  Kernel<const S*, const S*, GradientOut<S>, GradientOut<S>, const Gates*, double, std::size_t, bool> backward;
};

void require_output_op(PointwiseId id) {
  if (info_of(id).saves == Saves::y) return;
  throw InternalError("a residual addition cannot have " + std::string(info_of(id).name) +
                      " behind it: the op does not save its output");
}

template <class S>
const ResidualKernels<S>& kernels_of(PointwiseId id) {
#define GRADFLOW_RESIDUAL_ROW(Op, op) \
  {ops::Op::id, GRADFLOW_KERNEL_OF(S, residual_##op##_forward), GRADFLOW_KERNEL_OF(S, residual_##op##_backward)},
  static const ResidualKernels<S> kKernels[] = {GRADFLOW_FROM_OUTPUT_OPS(GRADFLOW_RESIDUAL_ROW)};
#undef GRADFLOW_RESIDUAL_ROW
  for (const ResidualKernels<S>& kernels : kKernels) {
    if (kernels.id == id) return kernels;
  }
  throw InternalError("pointwise op " + std::to_string(static_cast<int>(id)) + " has no CUDA kernels with an addition");
}

template <class S>
void forward(Queue& queue, const ResidualForward& a) {
  const auto* skip = static_cast<const S*>(a.skip);
  const auto* branch = static_cast<const S*>(a.branch);
  auto* y = static_cast<S*>(a.y);
  const bool vector = all_aligned16(skip, branch, y);
  const BlockGrid grid = flat_grid(queue, a.n, kStreamItemsPerBlock<S>);
  const Sinks branch_sinks = sinks(a.branch_stats, a.branch_exponents), y_sinks = sinks(a.y_stats, a.y_exponents),
              sum_sinks = sinks(a.sum_stats, a.sum_exponents);
  if (any(branch_sinks) || any(sum_sinks) || any(y_sinks)) {
    launch(queue, GRADFLOW_KERNEL_OF(S, residual_forward_stats), grid, a.op, skip, branch, y, a.gates, a.scale, a.n,
           vector, branch_sinks, sum_sinks, y_sinks, queue.scratch);
  } else if (a.op != PointwiseId::identity) {
    launch(queue, kernels_of<S>(a.op).forward, grid, skip, branch, y, a.gates, a.scale, a.n, vector);
  } else {
    launch(queue, GRADFLOW_KERNEL_OF(S, residual_forward), grid, skip, branch, y, a.gates, a.scale, a.n, vector);
  }
}

template <class S>
void backward(Queue& queue, const ResidualBackward& a) {
  const auto* dy = static_cast<const S*>(a.dy);
  const auto out = [](void* to, GradMode mode) {
    return GradientOut<S>{mode == GradMode::none ? nullptr : static_cast<S*>(to), mode};
  };
  const GradientOut<S> skip = out(a.dskip, a.skip_mode);
  const GradientOut<S> branch = out(a.dbranch, a.branch_mode);
  const bool vector = all_aligned16(dy, skip.to, branch.to);
  const BlockGrid grid = flat_grid(queue, a.n, kStreamItemsPerBlock<S>);
  const bool acts = a.op != PointwiseId::identity;
  const auto* y = acts ? static_cast<const S*>(a.y) : nullptr;
  if (acts && y == nullptr) throw InternalError("residual_backward: the output is missing");
  Sinks dbranch_sinks = sinks(a.dbranch_stats, a.dbranch_exponents);
  if (branch.to == nullptr) dbranch_sinks = {};
  const Sinks dy_sinks = sinks(a.dy_stats, a.dy_exponents), dsum_sinks = sinks(a.dsum_stats, a.dsum_exponents);
  if (any(dy_sinks) || any(dbranch_sinks) || any(dsum_sinks)) {
    launch(queue, GRADFLOW_KERNEL_OF(S, residual_backward_stats), grid, a.op, y, dy, skip, branch, a.gates, a.scale,
           a.n, vector && all_aligned16(y), dy_sinks, dbranch_sinks, dsum_sinks, queue.scratch);
  } else if (skip.to == nullptr && branch.to == nullptr) {
    return;
  } else if (acts) {
    launch(queue, kernels_of<S>(a.op).backward, grid, y, dy, skip, branch, a.gates, a.scale, a.n,
           vector && all_aligned16(y));
  } else {
    launch(queue, GRADFLOW_KERNEL_OF(S, residual_backward), grid, dy, skip, branch, a.gates, a.scale, a.n, vector);
  }
}

}  // namespace

void residual_forward(Queue& queue, const ResidualForward& a) {
  require_output_op(a.op);
  visit_storage(a.dtype, "residual_forward", [&]<class S>() {
    if (a.n != 0) forward<S>(queue, a);
  });
}

void residual_backward(Queue& queue, const ResidualBackward& a) {
  require_output_op(a.op);
  visit_storage(a.dtype, "residual_backward", [&]<class S>() {
    if (a.n != 0) backward<S>(queue, a);
  });
}

}  // namespace gradflow::kernels::cuda
