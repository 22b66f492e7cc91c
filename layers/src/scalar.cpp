#include "gradflow/layers/scalar.h"

#include <fmt/format.h>

#include <cmath>

#include "gradflow/kernels/error.h"

namespace gradflow {

Scalar::Scalar(const ScalarOptions& options) : options_(options) {
  if (!options.scale && !options.shift) throw UserError("a scalar layer without a scale and a shift: it needs one of them");
  if (!std::isfinite(options.initial_scale))
    throw UserError(fmt::format("a scalar layer with initial scale {}: it must be finite", options.initial_scale));
}

Inference Scalar::infer(std::span<const TensorSpec> inputs) const {
  if (inputs.size() != 1) throw UserError(fmt::format("{} inputs: a scalar layer has 1", inputs.size()));
  Inference r;
  r.outputs = {inputs[0]};
  if (options_.scale) {
    r.parameters.push_back({.name = "scale", .shape = {1}, .role = ParameterRole::scale, .factor = options_.initial_scale, .decay = false});
    r.backward_reads_input = {0};
  }
  if (options_.shift) r.parameters.push_back({.name = "shift", .shape = {1}, .role = ParameterRole::shift, .decay = false});
  r.output_over_input = 0;
  r.gradient_over_dy = 0;
  const double bytes = static_cast<double>(inputs[0].bytes()), n = static_cast<double>(inputs[0].elements());
  const double operations = static_cast<double>(options_.scale) + static_cast<double>(options_.shift);
  r.forward = {2 * bytes, operations * n};
  r.backward = {(options_.scale ? 3 : 2) * bytes, (operations + (options_.scale ? 2 : 0)) * n};
  r.dx_costs = {{bytes, (options_.scale ? 1 : 0) * n}};
  return r;
}

void Scalar::forward(ForwardContext& c) const {
  c.backend->scalar_forward({.dtype = c.x[0].dtype(), .n = c.x[0].elements(), .x = c.x[0].data, .y = c.y[0].data,
                             .scale = options_.scale ? c.parameters.front().data : nullptr,
                             .shift = options_.shift ? c.parameters.back().data : nullptr});
}

void Scalar::backward(BackwardContext& c) const {
  c.backend->scalar_backward({.dtype = c.dy[0].dtype(), .n = c.dy[0].elements(),
                              .x = options_.scale ? c.x[0].data : nullptr, .dy = c.dy[0].data,
                              .dx = c.dx[0].data, .mode = c.modes[0],
                              .scale = options_.scale ? c.parameters.front().data : nullptr,
                              .dscale = options_.scale ? c.dparameters.front().data : nullptr,
                              .dshift = options_.shift ? c.dparameters.back().data : nullptr,
                              .parameter_mode = c.parameter_modes[0]});
}

}  // namespace gradflow
