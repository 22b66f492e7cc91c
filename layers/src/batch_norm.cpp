#include "gradflow/layers/batch_norm.h"

#include <fmt/format.h>

#include "gradflow/kernels/error.h"

namespace gradflow {

BatchNorm::BatchNorm(const BatchNormOptions& options) : options_(options) {
  if (!(options.momentum >= 0 && options.momentum <= 1))
    throw UserError(fmt::format("batch norm momentum {}: it must be in [0, 1]", options.momentum));
  if (!(options.epsilon > 0)) throw UserError(fmt::format("batch norm epsilon {}: it must be above 0", options.epsilon));
}

Inference BatchNorm::infer(std::span<const TensorSpec> inputs) const {
  if (inputs.size() != 1) throw UserError(fmt::format("{} inputs: batch norm has 1", inputs.size()));
  const TensorSpec& x = inputs[0];
  if (x.shape.rank() < 2) throw UserError(fmt::format("input {}: batch norm takes rank 2 or more, channels last", x.shape.to_string()));
  const Shape channels{x.shape.back()};
  Inference r;
  r.outputs = {x};
  if (options_.affine) {
    r.parameters = {{.name = "scale", .shape = channels, .role = ParameterRole::scale, .decay = false},
                    {.name = "shift", .shape = channels, .role = ParameterRole::shift, .decay = false}};
  }
  r.states = {{.name = "running_mean", .spec = {channels, x.dtype}, .initial = 0},
              {.name = "running_variance", .spec = {channels, x.dtype}, .initial = 1}};
  r.saved = {{channels, x.dtype}, {channels, x.dtype}};  // mean, inverse standard deviation
  r.backward_reads_input = {0};
  r.gradient_over_dy = 0;
  const double bytes = static_cast<double>(x.bytes()), n = static_cast<double>(x.elements());
  r.forward = {3 * bytes, 8 * n};  // two passes over x, one write
  r.backward = {5 * bytes, 10 * n};
  return r;
}

void BatchNorm::forward(ForwardContext& c) const {
  const Tensor& x = c.x[0];
  const auto saved = [&](std::size_t i) { return c.saved.empty() ? nullptr : c.saved[i].data; };
  c.backend->batch_norm_forward({.dtype = x.dtype(), .rows = x.shape().rows(), .channels = static_cast<std::size_t>(x.shape().back()),
                                 .x = x.data, .y = c.y[0].data,
                                 .scale = options_.affine ? c.parameters[0].data : nullptr,
                                 .shift = options_.affine ? c.parameters[1].data : nullptr,
                                 .mean = saved(0), .inv_std = saved(1),
                                 .running_mean = c.states[0].data, .running_variance = c.states[1].data,
                                 .momentum = options_.momentum, .epsilon = options_.epsilon, .training = c.training});
}

void BatchNorm::backward(BackwardContext& c) const {
  const Tensor& x = c.x[0];
  c.backend->batch_norm_backward({.dtype = x.dtype(), .rows = x.shape().rows(), .channels = static_cast<std::size_t>(x.shape().back()),
                                  .x = x.data, .dy = c.dy[0].data,
                                  .scale = options_.affine ? c.parameters[0].data : nullptr,
                                  .mean = c.saved[0].data, .inv_std = c.saved[1].data,
                                  .dx = c.dx[0].data, .dx_mode = c.modes[0],
                                  .dscale = options_.affine ? c.dparameters[0].data : nullptr,
                                  .dshift = options_.affine ? c.dparameters[1].data : nullptr,
                                  .parameter_mode = options_.affine ? c.parameter_modes[0] : GradMode::overwrite});
}

}  // namespace gradflow
