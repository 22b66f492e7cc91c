#include "gradflow/kernels/error.h"
#include "kernels/cuda/bias_activation.cuh"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/launchers.h"

namespace gradflow::kernels::cuda {
namespace {

template <class S>
struct BiasKernels {
  PointwiseId id;
  Kernel<const S*, const float*, S*, std::size_t, std::size_t, bool> forward;
  Kernel<const S*, const float*, const S*, S*, float*, std::size_t, std::size_t, bool, bool, ReductionScratch> backward;
};

template <class S>
const BiasKernels<S>& kernels_of(PointwiseId id) {
#define GRADFLOW_BIAS_ROW(Op, op) \
  {ops::Op::id, GRADFLOW_KERNEL_OF(S, bias_##op##_forward), GRADFLOW_KERNEL_OF(S, bias_##op##_backward)},
  static const BiasKernels<S> kKernels[] = {GRADFLOW_POINTWISE_OPS(GRADFLOW_BIAS_ROW)};
#undef GRADFLOW_BIAS_ROW
  for (const BiasKernels<S>& kernels : kKernels) {
    if (kernels.id == id) return kernels;
  }
  throw InternalError("pointwise op " + std::to_string(static_cast<int>(id)) + " has no CUDA kernels with a bias");
}

void refuse_sinks(PointwiseId op, const char* call) {
  if (info_of(op).saves == Saves::y) return;
  throw InternalError(std::string(call) + ": statistics of '" + std::string(info_of(op).name) +
                      "', an op that does not save its output");
}

template <class S>
void forward(Queue& queue, const BiasActivationForward& a) {
  const auto* x = static_cast<const S*>(a.x);
  const auto* bias = static_cast<const float*>(a.bias);
  auto* y = static_cast<S*>(a.y);
  const Sinks z_sinks = sinks(a.z_stats, a.z_exponents), y_sinks = sinks(a.y_stats, a.y_exponents);
  if (any(z_sinks) || any(y_sinks)) {
    refuse_sinks(a.op, "bias_activation_forward");
    const bool packs = a.columns % kMeasuredPack == 0 && all_aligned16(x, bias, y);
    const BlockGrid grid = tile_grid<S, kMeasuredPack>(queue, a.rows, a.columns, packs);
    return launch(queue, GRADFLOW_KERNEL_OF(S, bias_forward_stats), grid, a.op, x, bias, y, a.rows, a.columns, packs,
                  z_sinks, y_sinks, second_scratch(queue, grid));
  }
  const bool vector = a.columns % kPackOf<S> == 0 && all_aligned16(x, bias, y);
  launch(queue, kernels_of<S>(a.op).forward, tile_grid<S>(queue, a.rows, a.columns, vector), x, bias, y, a.rows,
         a.columns, vector);
}

template <class S>
void backward(Queue& queue, const BiasActivationBackward& a) {
  const bool from_input = info_of(a.op).saves == Saves::x;
  if (from_input && a.bias == nullptr) throw InternalError("bias_activation_backward: this op needs the bias again");
  const auto* saved = static_cast<const S*>(a.saved);
  const auto* bias = from_input ? static_cast<const float*>(a.bias) : nullptr;
  const auto* dy = static_cast<const S*>(a.dy);
  auto* dx = static_cast<S*>(a.dx);
  auto* dbias = a.bias_mode == GradMode::none ? nullptr : static_cast<float*>(a.dbias);
  const bool accumulate = a.bias_mode == GradMode::accumulate;
  const Sinks dy_sinks = sinks(a.dy_stats, a.dy_exponents), dx_sinks = sinks(a.dx_stats, a.dx_exponents);
  if (any(dy_sinks) || any(dx_sinks)) {
    refuse_sinks(a.op, "bias_activation_backward");
    const bool packs = a.columns % kMeasuredPack == 0 && all_aligned16(saved, dy, dx);
    const BlockGrid grid = tile_grid<S, kMeasuredPack>(queue, a.rows, a.columns, packs);
    return launch(queue, GRADFLOW_KERNEL_OF(S, bias_backward_stats), grid, a.op, saved, dy, dx, dbias, a.rows,
                  a.columns, packs, accumulate, queue.scratch, dy_sinks, dx_sinks, second_scratch(queue, grid));
  }
  const bool vector = a.columns % kPackOf<S> == 0 && all_aligned16(saved, bias, dy, dx);
  launch(queue, kernels_of<S>(a.op).backward, tile_grid<S>(queue, a.rows, a.columns, vector), saved, bias, dy, dx, dbias,
         a.rows, a.columns, vector, accumulate, queue.scratch);
}

}  // namespace

void bias_activation_forward(Queue& queue, const BiasActivationForward& a) {
  visit_storage(a.dtype, "bias_activation_forward", [&]<class S>() {
    if (a.rows != 0 && a.columns != 0) forward<S>(queue, a);
  });
}

void bias_activation_backward(Queue& queue, const BiasActivationBackward& a) {
  visit_storage(a.dtype, "bias_activation_backward", [&]<class S>() {
    if (a.rows != 0 && a.columns != 0) backward<S>(queue, a);
  });
}

}  // namespace gradflow::kernels::cuda
