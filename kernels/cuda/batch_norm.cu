#include "gradflow/kernels/error.h"
#include "kernels/cuda/batch_norm.cuh"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/launchers.h"

namespace gradflow::kernels::cuda {
namespace {

const float* in(const void* p) { return static_cast<const float*>(p); }
float* out(void* p) { return static_cast<float*>(p); }

constexpr std::size_t kRowsPerThread = 16;  // of a reduction
constexpr std::size_t kRowsPerWalk = 4;

// How a launch is laid out: one channel a thread, or a pack of them.
struct Layout {
  bool packs;
  std::size_t columns;  // channels, or packs of them
  BlockGrid reduce, walk;
};

Layout layout_of(const Queue& queue, std::size_t rows, std::size_t channels, bool aligned) {
  Layout l{};
  l.packs = aligned && channels % kChannelPack == 0;
  l.columns = l.packs ? channels / kChannelPack : channels;
  l.reduce =
      matrix_grid(queue, rows, l.columns, l.packs ? kPackTileColumns : kReduceTileColumns, kRowsPerThread);
  l.walk = matrix_grid(queue, rows, l.columns, kBlockThreads, kRowsPerWalk);
  return l;
}

// Both forms of a kernel have the same parameters.
#define GRADFLOW_EITHER(layout, S, name) \
  ((layout).packs ? GRADFLOW_KERNEL_OF(S, name##_packs) : GRADFLOW_KERNEL_OF(S, name))

// What a training pass computes for each channel; parts the caller does not keep go to the workspace.
struct Moments {
  float* mean;
  float* mean_low;
  float* inv_std;
};

template <class S>
Moments compute_moments(Queue& queue, const Layout& layout, const BatchNormForward& a) {
  const auto* x = static_cast<const S*>(a.x);
  auto* work = static_cast<float*>(queue.workspace(3 * a.channels * sizeof(float)));
  const Moments m{a.mean != nullptr ? out(a.mean) : work, work + a.channels,
                  a.inv_std != nullptr ? out(a.inv_std) : work + 2 * a.channels};
  const RunningStatistics running{out(a.running_mean), out(a.running_variance), a.momentum};
  launch(queue, GRADFLOW_EITHER(layout, S, batch_norm_mean), layout.reduce, x, m.mean, a.rows, a.channels,
         running, queue.scratch);
  launch(queue, GRADFLOW_EITHER(layout, S, batch_norm_variance), layout.reduce, x, m.mean, m.mean_low,
         m.inv_std, a.rows, a.channels, a.epsilon, running, queue.scratch);
  return m;
}

template <class S>
void forward(Queue& queue, const BatchNormForward& a) {
  const auto* skip = static_cast<const S*>(a.skip);
  const Layout layout = layout_of(queue, a.rows, a.channels, all_aligned16(a.x, a.y, a.skip));
  Moments m{out(a.running_mean), nullptr, nullptr};
  if (a.training) m = compute_moments<S>(queue, layout, a);
  launch(queue, GRADFLOW_EITHER(layout, S, batch_norm_apply), layout.walk, static_cast<const S*>(a.x),
         static_cast<S*>(a.y), in(a.scale), in(a.shift), m.mean, m.mean_low, m.inv_std,
         in(a.training ? nullptr : a.running_variance), a.epsilon, a.rows, a.channels,
         BatchNormTail<S>{a.op, skip, a.gates, a.branch_scale});
}

template <class S>
void backward(Queue& queue, const BatchNormBackward& a, GradMode skip_mode, bool outputs) {
  const bool parameters = a.parameter_mode != GradMode::none;
  const auto *x = static_cast<const S*>(a.x), *dy = static_cast<const S*>(a.dy);
  const BatchNormTailBackward<S> tail{a.op,
                                      static_cast<const S*>(a.op != PointwiseId::identity ? a.y : nullptr),
                                      a.has_skip ? a.gates : nullptr,
                                      a.branch_scale,
                                      static_cast<S*>(a.dskip),
                                      skip_mode};
  const Layout layout =
      layout_of(queue, a.rows, a.channels, all_aligned16(a.x, a.dy, a.dx, tail.y, a.dskip));
  auto* means = static_cast<float*>(queue.workspace(2 * a.channels * sizeof(float)));
  launch(queue, GRADFLOW_EITHER(layout, S, batch_norm_backward_sums), layout.reduce, x, dy, in(a.mean),
         in(a.inv_std), parameters ? out(a.dscale) : nullptr, parameters ? out(a.dshift) : nullptr,
         a.parameter_mode == GradMode::accumulate, means, 1.0 / static_cast<double>(a.rows), a.rows,
         a.channels, tail, queue.scratch);
  if (!outputs) return;
  launch(queue, GRADFLOW_EITHER(layout, S, batch_norm_backward_apply), layout.walk, x, dy, in(a.scale),
         in(a.mean), in(a.inv_std), means, static_cast<S*>(a.dx), a.dx_mode, a.rows, a.channels, tail);
}

void require_output_op(PointwiseId op) {
  if (info_of(op).saves != Saves::y)
    throw InternalError("batch norm cannot end in an operation that saves its input");
}

}  // namespace

void batch_norm_forward(Queue& queue, const BatchNormForward& a) {
  require_output_op(a.op);
  visit_storage(a.dtype, "batch_norm_forward", [&]<class S>() {
    if (a.rows != 0 && a.channels != 0) forward<S>(queue, a);
  });
}

void batch_norm_backward(Queue& queue, const BatchNormBackward& a) {
  require_output_op(a.op);
  const GradMode skip_mode = a.has_skip ? a.skip_mode : GradMode::none;
  const bool outputs = a.dx_mode != GradMode::none || skip_mode != GradMode::none;
  visit_storage(a.dtype, "batch_norm_backward", [&]<class S>() {
    if (a.rows == 0 || a.channels == 0 || (a.parameter_mode == GradMode::none && !outputs)) return;
    backward<S>(queue, a, skip_mode, outputs);
  });
}

}  // namespace gradflow::kernels::cuda
