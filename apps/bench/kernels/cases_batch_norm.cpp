// Cases of batch normalization.
#include <algorithm>
#include <string>

#include "apps/bench/kernels/case_list.h"

namespace gradflow::app::cases {

// A channel's mean must be known before its elements can be normalized, so x is read twice at least. Channels
// in fours are moved in packs.
void CaseList::batch_norm(bool packs) {
  const DType t = t_;
  const char* variant = packs ? "" : "odd";
  const auto kernel = [&](const std::string& stem) { return named(stem + (packs ? "_packs" : "")); };
  const auto work = [t, b = bytes_, packs](std::size_t arrays, double reads, double writes) {
    return [=](std::size_t size) {
      Work w = matrix(size, packs ? kColumns : kColumns - 1);
      if (packs) w = matrix(std::max<std::size_t>(size, 4), std::max<std::size_t>(w.columns / 4 * 4, 4));
      const auto n = static_cast<double>(elements(w));
      w.operands.assign(arrays, numbers(t, elements(w)));
      for (int i = 0; i < 4; ++i) w.operands.push_back(numbers(arithmetic_type(t), w.columns));
      for (int i = 0; i < 2; ++i) w.operands.push_back({Content::positive, arithmetic_type(t), w.columns});
      for (int i = 0; i < 4; ++i) w.operands.push_back(statistics());
      w.read_bytes = reads * b * n, w.written_bytes = writes * b * n;
      return w;
    };
  };
  for (const bool training : {true, false}) {
    KernelCase& c = add(training ? "batch_norm_forward" : "batch_norm_apply", variant, "batch norm",
                        "batch_norm_forward", "forward");
    c.kernels = {kernel("batch_norm_moments"), kernel("batch_norm_apply")};
    if (!training) c.kernels = {kernel("batch_norm_apply")};
    c.work = work(2, training ? 2 : 1, 1);
    c.bind = [t, training](Backend& b, const Work& w, Pointers p) -> LaunchOnce {
      return [&b, a = kernels::BatchNormForward{.dtype = t,
                                                .rows = w.rows,
                                                .channels = w.columns,
                                                .x = p[0],
                                                .y = p[1],
                                                .scale = p[2],
                                                .shift = p[3],
                                                .mean = training ? p[4] : nullptr,
                                                .inv_std = training ? p[6] : nullptr,
                                                .running_mean = p[5],
                                                .running_variance = p[7],
                                                .training = training}] { b.batch_norm_forward(a); };
    };
  }
  // With everything that can be measured; forward, an activation stands behind it.
  KernelCase& seen = add("batch_norm_apply_stats", variant, "batch norm", "batch_norm_forward", "forward");
  seen.kernels = {kernel("batch_norm_apply_stats")};
  seen.work = work(2, 1, 1);
  seen.bind = [t](Backend& b, const Work& w, Pointers p) -> LaunchOnce {
    kernels::BatchNormForward a{.dtype = t, .rows = w.rows, .channels = w.columns, .x = p[0], .y = p[1]};
    a.scale = p[2], a.shift = p[3], a.running_mean = p[5], a.running_variance = p[7], a.training = false;
    a.op = PointwiseId::relu;
    a.x_stats = stats_at(p[8]), a.n_stats = stats_at(p[9]), a.sum_stats = stats_at(p[10]), a.y_stats = stats_at(p[11]);
    return [&b, a] { b.batch_norm_forward(a); };
  };
  KernelCase& seen_back = add("batch_norm_backward_stats", variant, "batch norm", "batch_norm_backward", "backward");
  seen_back.kernels = {kernel("batch_norm_backward_sums"), kernel("batch_norm_backward_apply_stats")};
  seen_back.work = work(3, 4, 1);
  seen_back.bind = [t](Backend& b, const Work& w, Pointers p) -> LaunchOnce {
    kernels::BatchNormBackward a{.dtype = t, .rows = w.rows, .channels = w.columns, .x = p[0], .dy = p[1]};
    a.scale = p[3], a.mean = p[4], a.inv_std = p[7], a.dx = p[2], a.dscale = p[5], a.dshift = p[6];
    a.dy_stats = stats_at(p[9]), a.dsum_stats = stats_at(p[10]), a.dn_stats = stats_at(p[11]), a.dx_stats = stats_at(p[12]);
    return [&b, a] { b.batch_norm_backward(a); };
  };
  KernelCase& c = add("batch_norm_backward", variant, "batch norm", "batch_norm_backward", "backward");
  c.kernels = {kernel("batch_norm_backward_sums"), kernel("batch_norm_backward_apply")};
  c.work = work(3, 4, 1);
  c.bind = [t](Backend& b, const Work& w, Pointers p) -> LaunchOnce {
    return [&b, a = kernels::BatchNormBackward{.dtype = t,
                                               .rows = w.rows,
                                               .channels = w.columns,
                                               .x = p[0],
                                               .dy = p[1],
                                               .scale = p[3],
                                               .mean = p[4],
                                               .inv_std = p[7],
                                               .dx = p[2],
                                               .dscale = p[5],
                                               .dshift = p[6]}] { b.batch_norm_backward(a); };
  };
}

}  // namespace gradflow::app::cases
