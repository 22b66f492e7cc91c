#include "gradflow/layers/activation.h"

#include <fmt/format.h>

#include "gradflow/kernels/error.h"

namespace gradflow {

Inference Activation::infer(std::span<const TensorSpec> inputs) const {
  if (inputs.size() != 1) throw UserError(fmt::format("{} inputs: an activation has 1", inputs.size()));
  Inference r;
  r.outputs = {inputs[0]};
  const bool saves_output = info_.saves == Saves::y;
  if (saves_output) r.backward_reads_output = {0};
  else r.backward_reads_input = {0};
  if (saves_output) r.output_over_input = 0;
  r.gradient_over_dy = 0;
  const double bytes = static_cast<double>(inputs[0].bytes()), n = static_cast<double>(inputs[0].elements());
  r.forward = {2 * bytes, info_.flops * n};
  r.backward = {3 * bytes, 3 * n};
  return r;
}

void Activation::forward(ForwardContext& c) const {
  c.backend->pointwise_forward({.op = info_.id, .dtype = c.x[0].dtype(), .n = c.x[0].elements(), .x = c.x[0].data,
                                .y = c.y[0].data, .x_stats = c.x_stats, .y_stats = c.y_stats,
                                .x_exponents = c.x_exponents, .y_exponents = c.y_exponents});
}

void Activation::backward(BackwardContext& c) const {
  if (c.modes[0] == GradMode::none) return;
  const void* saved = info_.saves == Saves::y ? c.y[0].data : c.x[0].data;
  c.backend->pointwise_backward({.op = info_.id, .dtype = c.dy[0].dtype(), .n = c.dy[0].elements(), .saved = saved,
                                 .dy = c.dy[0].data, .dx = c.dx[0].data, .mode = c.modes[0],
                                 .dy_stats = c.dy_stats, .dx_stats = c.dx_stats,
                                 .dy_exponents = c.dy_exponents, .dx_exponents = c.dx_exponents});
}

}  // namespace gradflow
