#include "gradflow/layers/residual_add.h"

#include <fmt/format.h>

#include <cmath>

#include "gradflow/kernels/error.h"
#include "gradflow/layers/activation.h"

namespace gradflow {

ResidualAdd::ResidualAdd(double scale) : scale_(scale) {
  if (!std::isfinite(scale)) throw UserError(fmt::format("a residual addition with scale {}: it must be finite", scale));
}

Inference ResidualAdd::infer(std::span<const TensorSpec> inputs) const {
  if (inputs.size() != 2) throw UserError(fmt::format("{} inputs: a residual addition has 2, skip and branch", inputs.size()));
  if (inputs[0] != inputs[1])
    throw UserError(fmt::format("skip {} and branch {} differ: they must have one shape", inputs[0].to_string(), inputs[1].to_string()));
  Inference r;
  r.outputs = {inputs[0]};
  r.states = {{.name = "gates", .spec = {{4}, DType::f32}, .initial = 1, .control = true}};
  r.differentiable = {0, 1};
  r.output_over_input = 1;  // the branch's result: the skip is read by the branch as well
  r.gradient_over_dy = 0;
  const double bytes = static_cast<double>(inputs[0].bytes()), n = static_cast<double>(inputs[0].elements());
  r.forward = {3 * bytes, 3 * n};
  r.backward = {3 * bytes, 2 * n};
  if (acts()) {
    r.backward_reads_output = {0};
    r.forward.flops += info_of(op_).flops * n;
    r.backward = {4 * bytes, 5 * n};
  }
  r.dx_costs = {{bytes, n}, {bytes, n}};
  return r;
}

std::shared_ptr<const Layer> ResidualAdd::fuse(const Layer& next, std::size_t) const {
  // ReLU alone: in bf16 the fused pass rounds once where an addition and another function would round twice, and a
  // step with a probe that keeps the two apart must have the same bits.
  const auto* activation = dynamic_cast<const Activation*>(&next);
  if (!activation || acts() || activation->op() != PointwiseId::relu) return nullptr;
  auto fused = std::make_shared<ResidualAdd>(*this);
  fused->op_ = activation->op();
  fused->type_ += "+" + std::string(next.type());
  return fused;
}

void ResidualAdd::forward(ForwardContext& c) const {
  c.backend->residual_forward({.dtype = c.y[0].dtype(), .n = c.y[0].elements(), .skip = c.x[0].data, .branch = c.x[1].data,
                               .y = c.y[0].data, .gates = c.states[0].as<kernels::Gates>(), .scale = scale_, .y_stats = c.y_stats, .op = op_,
                               .y_exponents = c.y_exponents, .branch_stats = c.x_stats, .branch_exponents = c.x_exponents,
                               .sum_stats = c.between[0].stats, .sum_exponents = c.between[0].exponents});
}

void ResidualAdd::backward(BackwardContext& c) const {
  c.backend->residual_backward({.dtype = c.dy[0].dtype(), .n = c.dy[0].elements(), .dy = c.dy[0].data,
                                .dskip = c.dx[0].data, .skip_mode = c.modes[0], .dbranch = c.dx[1].data, .branch_mode = c.modes[1],
                                .gates = c.states[0].as<kernels::Gates>(), .scale = scale_, .dy_stats = c.dy_stats, .op = op_,
                                .y = acts() ? c.y[0].data : nullptr, .dy_exponents = c.dy_exponents,
                                .dsum_stats = c.between[0].stats, .dsum_exponents = c.between[0].exponents,
                                .dbranch_stats = c.dx_stats, .dbranch_exponents = c.dx_exponents});
}

}  // namespace gradflow
