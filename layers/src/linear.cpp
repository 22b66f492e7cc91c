#include "gradflow/layers/linear.h"

#include <fmt/format.h>

#include <algorithm>

#include "activation_behind.h"
#include "gradflow/kernels/error.h"

namespace gradflow {
namespace {

using kernels::Matmul;
using kernels::MatmulDesc;

struct Products final : Prepared {
  bool bias = false;  // in y
  std::shared_ptr<Matmul> y, dx_overwrite, dx_accumulate, dw_overwrite, dw_accumulate;
};

Shape with_last(const Shape& shape, std::int64_t last) {
  switch (shape.rank()) {
    case 2: return {shape[0], last};
    case 3: return {shape[0], shape[1], last};
    case 4: return {shape[0], shape[1], shape[2], last};
    default: throw UserError(fmt::format("input {}: a linear layer takes rank 2 to 4, the features last", shape.to_string()));
  }
}

}  // namespace

Linear::Linear(std::int64_t out, bool bias, double weight_factor)
    : out_(out), bias_(bias), weight_factor_(weight_factor) {
  if (out < 1) throw UserError(fmt::format("a linear layer with {} outputs: at least 1", out));
}

Inference Linear::infer(std::span<const TensorSpec> inputs) const {
  if (inputs.size() != 1) throw UserError(fmt::format("{} inputs: a linear layer has 1", inputs.size()));
  const TensorSpec& x = inputs[0];
  const std::int64_t in = x.shape.back();
  Inference r;
  r.outputs = {{with_last(x.shape, out_), x.dtype}};
  r.parameters = {{.name = "weight", .shape = {out_, in}, .role = ParameterRole::weight, .fan_in = in, .fan_out = out_, .factor = weight_factor_, .decay = true, .multiplied = true}};
  if (bias_) r.parameters.push_back({.name = "bias", .shape = {out_}, .role = ParameterRole::bias, .fan_in = in, .fan_out = out_, .decay = false});
  r.backward_reads_input = {0};
  const double rows = static_cast<double>(x.shape.rows()), i = static_cast<double>(in), o = static_cast<double>(out_);
  const double width = static_cast<double>(size_of(x.dtype)), wide = static_cast<double>(size_of(arithmetic_type(x.dtype)));
  r.forward = {width * (rows * i + rows * o + i * o) + (bias_ ? wide * o : 0), 2 * rows * i * o};
  r.backward = {width * (2 * rows * o + 2 * rows * i + i * o + (bias_ ? rows * o : 0)) + wide * (i * o + (bias_ ? o : 0)), 4 * rows * i * o};
  r.dx_costs = {{width * (rows * o + i * o + rows * i), 2 * rows * i * o}};
  behind::add_to(r, op_);
  return r;
}

std::shared_ptr<const Layer> Linear::fuse(const Layer& next, std::size_t) const {
  const PointwiseId op = behind::op_of(next);
  if (!bias_ || op_ != PointwiseId::identity || op == PointwiseId::identity) return nullptr;
  auto fused = std::make_shared<Linear>(*this);
  fused->op_ = op;
  fused->type_ += "+" + std::string(next.type());
  return fused;
}

FusedStats Linear::fused_stats() const noexcept { return behind::fused_stats(op_); }

std::unique_ptr<Prepared> Linear::prepare(std::span<const TensorSpec> inputs, Backend& backend) const {
  auto p = std::make_unique<Products>();
  const TensorSpec& x = inputs[0];
  const std::int64_t rows = static_cast<std::int64_t>(x.shape.rows()), in = x.shape.back();
  p->bias = bias_ && behind::bias_in_product(op_, backend);
  MatmulDesc y{.dtype = x.dtype, .m = rows, .n = out_, .k = in, .transpose_a = false, .transpose_b = true, .accumulate = false,
               .bias = p->bias};
  MatmulDesc dx{.dtype = x.dtype, .m = rows, .n = in, .k = out_};
  MatmulDesc dw{.dtype = x.dtype, .m = out_, .n = in, .k = rows, .transpose_a = true, .y_dtype = arithmetic_type(x.dtype)};
  p->y = backend.prepare_matmul(y);
  p->dx_overwrite = backend.prepare_matmul(dx);
  p->dw_overwrite = backend.prepare_matmul(dw);
  dx.accumulate = dw.accumulate = true;
  p->dx_accumulate = backend.prepare_matmul(dx);
  p->dw_accumulate = backend.prepare_matmul(dw);
  p->forward_workspace = p->y->workspace_bytes();
  for (const auto& product : {p->dx_overwrite, p->dx_accumulate, p->dw_overwrite, p->dw_accumulate})
    p->backward_workspace = std::max(p->backward_workspace, product->workspace_bytes());
  return p;
}

void Linear::forward(ForwardContext& c) const {
  auto& p = static_cast<Products&>(*c.prepared);
  p.y->run(c.x[0].data, c.parameters[0].data, p.bias ? c.parameters[1].data : nullptr, c.y[0].data, c.workspace);
  behind::forward(c, op_);
}

void Linear::backward(BackwardContext& c) const {
  auto& p = static_cast<Products&>(*c.prepared);
  const void* dy = behind::backward(c, op_);
  if (c.modes[0] != GradMode::none)
    (c.modes[0] == GradMode::overwrite ? p.dx_overwrite : p.dx_accumulate)->run(dy, c.parameters[0].data, nullptr, c.dx[0].data, c.workspace);
  (c.parameter_modes[0] == GradMode::overwrite ? p.dw_overwrite : p.dw_accumulate)
      ->run(dy, c.x[0].data, nullptr, c.dparameters[0].data, c.workspace);
}

}  // namespace gradflow
