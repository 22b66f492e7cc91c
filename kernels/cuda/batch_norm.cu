#include "kernels/cuda/batch_norm.cuh"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/launchers.h"

namespace gradflow::kernels::cuda {
namespace {

const float* in(const void* p) { return static_cast<const float*>(p); }
float* out(void* p) { return static_cast<float*>(p); }

constexpr std::size_t kRowsPerThread = 16;  // of a reduction
constexpr std::size_t kRowsPerWalk = 4;

// What a training pass computes for each channel; parts the caller does not keep go to the workspace.
struct Moments {
  float* mean;
  float* mean_low;
  float* inv_std;
};

Moments compute_moments(Queue& queue, const BatchNormForward& a) {
  auto* work = static_cast<float*>(queue.workspace(3 * a.channels * sizeof(float)));
  const Moments m{a.mean != nullptr ? out(a.mean) : work, work + a.channels,
                  a.inv_std != nullptr ? out(a.inv_std) : work + 2 * a.channels};
  const BlockGrid grid = matrix_grid(queue, a.rows, a.channels, kReduceTileColumns, kRowsPerThread);
  const RunningStatistics running{out(a.running_mean), out(a.running_variance), a.momentum};
  launch(queue, GRADFLOW_KERNEL(batch_norm_mean_f32), grid, in(a.x), m.mean, a.rows, a.channels, running,
         queue.scratch);
  launch(queue, GRADFLOW_KERNEL(batch_norm_variance_f32), grid, in(a.x), m.mean, m.mean_low, m.inv_std,
         a.rows, a.channels, a.epsilon, running, queue.scratch);
  return m;
}

}  // namespace

void batch_norm_forward(Queue& queue, const BatchNormForward& a) {
  require_supported(a.dtype, "batch_norm_forward");
  if (a.rows == 0 || a.channels == 0) return;
  Moments m{out(a.running_mean), nullptr, nullptr};
  if (a.training) m = compute_moments(queue, a);
  launch(queue, GRADFLOW_KERNEL(batch_norm_apply_f32),
         matrix_grid(queue, a.rows, a.channels, kBlockThreads, kRowsPerWalk), in(a.x), out(a.y), in(a.scale),
         in(a.shift), m.mean, m.mean_low, m.inv_std, in(a.training ? nullptr : a.running_variance), a.epsilon,
         a.rows, a.channels);
}

void batch_norm_backward(Queue& queue, const BatchNormBackward& a) {
  require_supported(a.dtype, "batch_norm_backward");
  const bool parameters = a.parameter_mode != GradMode::none;
  const bool input = a.dx_mode != GradMode::none;
  if (a.rows == 0 || a.channels == 0 || (!parameters && !input)) return;
  auto* means = static_cast<float*>(queue.workspace(2 * a.channels * sizeof(float)));
  launch(queue, GRADFLOW_KERNEL(batch_norm_backward_sums_f32),
         matrix_grid(queue, a.rows, a.channels, kReduceTileColumns, kRowsPerThread), in(a.x), in(a.dy),
         in(a.mean), in(a.inv_std), parameters ? out(a.dscale) : nullptr,
         parameters ? out(a.dshift) : nullptr, a.parameter_mode == GradMode::accumulate, means, a.rows,
         a.channels, queue.scratch);
  if (!input) return;
  launch(queue, GRADFLOW_KERNEL(batch_norm_backward_apply_f32),
         matrix_grid(queue, a.rows, a.channels, kBlockThreads, kRowsPerWalk), in(a.x), in(a.dy), in(a.scale),
         in(a.mean), in(a.inv_std), means, out(a.dx), a.dx_mode == GradMode::accumulate, a.rows, a.channels);
}

}  // namespace gradflow::kernels::cuda
