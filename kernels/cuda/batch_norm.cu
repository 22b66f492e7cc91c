#include <algorithm>

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

// The floats a pass needs for itself, and the scratch of its statistics where it measures.
struct Room {
  float* floats;
  ReductionScratch for_sinks;
};

Room room_of(Queue& queue, const Layout& layout, bool measures, std::size_t floats) {
  if (!measures) return {static_cast<float*>(queue.workspace(floats * sizeof(float))), {}};
  const SecondScratch second = second_scratch(queue, layout.walk, floats * sizeof(float));
  return {static_cast<float*>(second.more), second.scratch};
}

bool any(const BatchNormSinks& sinks) {
  return std::ranges::any_of(sinks.of, [](const Sinks& s) { return cuda::any(s); });
}

// What a training pass computes for each channel; parts the caller does not keep go to the workspace.
struct Moments {
  float* mean;
  float* mean_low;
  float* inv_std;
};

template <class S>
Moments compute_moments(Queue& queue, const Layout& layout, const BatchNormForward& a, float* work) {
  const auto* x = static_cast<const S*>(a.x);
  const Moments m{a.mean != nullptr ? out(a.mean) : work, work + a.channels,
                  a.inv_std != nullptr ? out(a.inv_std) : work + 2 * a.channels};
  const RunningStatistics running{out(a.running_mean), out(a.running_variance), a.momentum};
  launch(queue, GRADFLOW_EITHER(layout, S, batch_norm_moments), layout.reduce, x, m.mean, m.mean_low, m.inv_std, a.rows,
         a.channels, a.epsilon, running, queue.scratch);
  return m;
}

template <class S>
void forward(Queue& queue, const BatchNormForward& a) {
  const auto* skip = static_cast<const S*>(a.skip);
  const Layout layout = layout_of(queue, a.rows, a.channels, all_aligned16(a.x, a.y, a.skip));
  const BatchNormSinks measured{{sinks(a.x_stats, a.x_exponents), sinks(a.n_stats, a.n_exponents),
                                 sinks(a.sum_stats, a.sum_exponents), sinks(a.y_stats, a.y_exponents)}};
  const bool measures = any(measured);
  const Room room = room_of(queue, layout, measures, a.training ? 3 * a.channels : 0);
  Moments m{out(a.running_mean), nullptr, nullptr};
  if (a.training) m = compute_moments<S>(queue, layout, a, room.floats);
  const auto apply = [&](const auto& kernel, const auto&... more) {
    launch(queue, kernel, layout.walk, static_cast<const S*>(a.x), static_cast<S*>(a.y), in(a.scale), in(a.shift),
           m.mean, m.mean_low, m.inv_std, in(a.training ? nullptr : a.running_variance), a.epsilon, a.rows, a.channels,
           BatchNormTail<S>{a.op, skip, a.gates, a.branch_scale}, more...);
  };
  if (measures) {
    apply(GRADFLOW_EITHER(layout, S, batch_norm_apply_stats), measured, room.for_sinks);
  } else {
    apply(GRADFLOW_EITHER(layout, S, batch_norm_apply));
  }
}

template <class S>
void backward(Queue& queue, const BatchNormBackward& a, GradMode skip_mode, bool outputs,
              const BatchNormSinks& measured) {
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
  const bool measures = any(measured);
  const Room room = room_of(queue, layout, measures, 2 * a.channels);
  float* means = room.floats;
  launch(queue, GRADFLOW_EITHER(layout, S, batch_norm_backward_sums), layout.reduce, x, dy, in(a.mean),
         in(a.inv_std), parameters ? out(a.dscale) : nullptr, parameters ? out(a.dshift) : nullptr,
         a.parameter_mode == GradMode::accumulate, means, 1.0 / static_cast<double>(a.rows), a.rows,
         a.channels, tail, queue.scratch);
  const auto apply = [&](const auto& kernel, const auto&... more) {
    launch(queue, kernel, layout.walk, x, dy, in(a.scale), in(a.mean), in(a.inv_std), means, static_cast<S*>(a.dx),
           a.dx_mode, a.rows, a.channels, tail, more...);
  };
  if (measures) {
    apply(GRADFLOW_EITHER(layout, S, batch_norm_backward_apply_stats), measured, room.for_sinks);
  } else if (outputs) {
    apply(GRADFLOW_EITHER(layout, S, batch_norm_backward_apply));
  }
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
  BatchNormSinks measured{{sinks(a.dy_stats, a.dy_exponents), sinks(a.dsum_stats, a.dsum_exponents),
                           sinks(a.dn_stats, a.dn_exponents), sinks(a.dx_stats, a.dx_exponents)}};
  if (a.dx_mode == GradMode::none) measured.of[3] = {};
  visit_storage(a.dtype, "batch_norm_backward", [&]<class S>() {
    if (a.rows == 0 || a.channels == 0) return;
    if (a.parameter_mode == GradMode::none && !outputs && !any(measured)) return;
    backward<S>(queue, a, skip_mode, outputs, measured);
  });
}

}  // namespace gradflow::kernels::cuda
