#include "gradflow/layers/batch_norm.h"

#include <fmt/format.h>

#include <cmath>

#include "gradflow/kernels/error.h"
#include "gradflow/layers/activation.h"
#include "gradflow/layers/residual_add.h"

namespace gradflow {

BatchNorm::BatchNorm(const BatchNormOptions& options) : options_(options) {
  if (!(options.momentum >= 0 && options.momentum <= 1))
    throw UserError(fmt::format("batch norm momentum {}: it must be in [0, 1]", options.momentum));
  if (!(options.epsilon > 0 && std::isfinite(options.epsilon)))
    throw UserError(fmt::format("batch norm epsilon {}: it must be finite and above 0", options.epsilon));
}

Inference BatchNorm::infer(std::span<const TensorSpec> inputs) const {
  const std::size_t count = adds_ ? 2 : 1;
  if (inputs.size() != count) throw UserError(fmt::format("{} inputs: batch norm has {}", inputs.size(), count));
  const TensorSpec& x = inputs[0];
  if (x.shape.rank() < 2) throw UserError(fmt::format("input {}: batch norm takes rank 2 or more, channels last", x.shape.to_string()));
  const TensorSpec channels{{x.shape.back()}, arithmetic_type(x.dtype)};
  Inference r;
  r.outputs = {x};
  if (options_.affine) {
    r.parameters = {{.name = options_.torch_names ? "weight" : "scale", .shape = channels.shape, .role = ParameterRole::scale, .decay = false},
                    {.name = options_.torch_names ? "bias" : "shift", .shape = channels.shape, .role = ParameterRole::shift, .decay = false}};
  }
  r.states = {{.name = "running_mean", .spec = channels, .initial = 0},
              {.name = options_.torch_names ? "running_var" : "running_variance", .spec = channels, .initial = 1}};
  if (adds_) r.states.push_back({.name = "gates", .spec = {{4}, DType::f32}, .initial = 1, .control = true});
  r.saved = {channels, channels};  // mean, inverse standard deviation
  r.backward_reads_input = {0};
  if (acts()) r.backward_reads_output = {0};
  if (adds_) r.differentiable = {0, 1};
  // With an addition the skip's gradient, which lives on, takes the place of dy; x's is used up soon.
  r.gradient_over_dy = adds_ ? 1 : 0;
  if (adds_) r.output_over_input = 1;
  const double bytes = static_cast<double>(x.bytes()), n = static_cast<double>(x.elements());
  r.forward = {(adds_ ? 4 : 3) * bytes, (adds_ ? 11 : 8) * n};  // statistics read x, the result reads x and writes y
  r.backward = {(5 + (acts() ? 2 : 0) + (adds_ ? 1 : 0)) * bytes, (adds_ ? 12 : 10) * n};
  if (acts()) {
    r.forward.flops += info_of(op_).flops * n;
    r.backward.flops += 3 * n;
  }
  // The pass over x and dy (and y) behind the sums. With an addition that pass writes the skip's gradient as well.
  if (!adds_) r.dx_costs = {{(3 + (acts() ? 1 : 0)) * bytes, 5 * n}};
  return r;
}

std::shared_ptr<const Layer> BatchNorm::fuse(const Layer& next, std::size_t operand) const {
  if (acts()) return nullptr;
  auto fused = std::make_shared<BatchNorm>(*this);
  if (const auto* activation = dynamic_cast<const Activation*>(&next)) {
    if (info_of(activation->op()).saves != Saves::y) return nullptr;
    fused->op_ = activation->op();
  } else if (const auto* addition = dynamic_cast<const ResidualAdd*>(&next); addition && !adds_ && operand == 1 &&
             addition->op() == PointwiseId::identity) {
    fused->adds_ = true;
    fused->branch_scale_ = addition->scale();
  } else {
    return nullptr;
  }
  fused->type_ += fused->adds_ && !adds_ ? std::string("+add") : "+" + std::string(next.type());
  return fused;
}

void BatchNorm::forward(ForwardContext& c) const {
  const Tensor& x = c.x[0];
  const auto& [n, sum] = c.between;
  const auto saved = [&](std::size_t i) { return c.saved.empty() ? nullptr : c.saved[i].data; };
  c.backend->batch_norm_forward({.dtype = x.dtype(), .rows = x.shape().rows(), .channels = static_cast<std::size_t>(x.shape().back()),
                                 .x = x.data, .y = c.y[0].data,
                                 .scale = options_.affine ? c.parameters[0].data : nullptr,
                                 .shift = options_.affine ? c.parameters[1].data : nullptr,
                                 .mean = saved(0), .inv_std = saved(1),
                                 .running_mean = c.states[0].data, .running_variance = c.states[1].data,
                                 .momentum = options_.momentum, .epsilon = options_.epsilon, .training = c.training, .op = op_,
                                 .skip = adds_ ? c.x[1].data : nullptr,
                                 .gates = adds_ ? c.states[2].as<kernels::Gates>() : nullptr, .branch_scale = branch_scale_,
                                 .x_stats = c.x_stats, .n_stats = n.stats, .sum_stats = sum.stats, .y_stats = c.y_stats,
                                 .x_exponents = c.x_exponents, .n_exponents = n.exponents, .sum_exponents = sum.exponents,
                                 .y_exponents = c.y_exponents});
}

void BatchNorm::backward(BackwardContext& c) const {
  const Tensor& x = c.x[0];
  const auto& [dn, dsum] = c.between;
  c.backend->batch_norm_backward({.dtype = x.dtype(), .rows = x.shape().rows(), .channels = static_cast<std::size_t>(x.shape().back()),
                                  .x = x.data, .dy = c.dy[0].data,
                                  .scale = options_.affine ? c.parameters[0].data : nullptr,
                                  .mean = c.saved[0].data, .inv_std = c.saved[1].data,
                                  .dx = c.dx[0].data, .dx_mode = c.modes[0],
                                  .dscale = options_.affine ? c.dparameters[0].data : nullptr,
                                  .dshift = options_.affine ? c.dparameters[1].data : nullptr,
                                  .parameter_mode = options_.affine ? c.parameter_modes[0] : GradMode::overwrite, .op = op_,
                                  .y = acts() ? c.y[0].data : nullptr, .has_skip = adds_,
                                  .dskip = adds_ ? c.dx[1].data : nullptr, .skip_mode = adds_ ? c.modes[1] : GradMode::none,
                                  .gates = adds_ ? c.states[2].as<kernels::Gates>() : nullptr, .branch_scale = branch_scale_,
                                  .dy_stats = c.dy_stats, .dsum_stats = dsum.stats, .dn_stats = dn.stats, .dx_stats = c.dx_stats,
                                  .dy_exponents = c.dy_exponents, .dsum_exponents = dsum.exponents, .dn_exponents = dn.exponents,
                                  .dx_exponents = c.dx_exponents});
}

}  // namespace gradflow
