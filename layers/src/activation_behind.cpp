#include "activation_behind.h"

#include "gradflow/layers/activation.h"

namespace gradflow::behind {
namespace {

std::size_t columns_of(const Tensor& y) { return static_cast<std::size_t>(y.shape().back()); }

}  // namespace

PointwiseId op_of(const Layer& next) {
  const auto* activation = dynamic_cast<const Activation*>(&next);
  return activation && info_of(activation->op()).saves == Saves::y ? activation->op() : PointwiseId::identity;
}

bool bias_in_product(PointwiseId op, const Backend& backend) {
  return op == PointwiseId::identity || backend.is_host();
}

void add_to(Inference& layer, PointwiseId op) {
  if (op == PointwiseId::identity) return;
  layer.backward_reads_output = {0};
  layer.backward_scratch = true;
  const TensorSpec& y = layer.outputs.front();
  const double bytes = static_cast<double>(y.bytes()), n = static_cast<double>(y.elements());
  layer.forward.bytes += 2 * bytes;
  layer.forward.flops += info_of(op).flops * n;
  layer.backward.bytes += 2 * bytes;  // reads y and dy and writes dz, where the bias gradient alone reads dy
  layer.backward.flops += 3 * n;
}

FusedStats fused_stats(PointwiseId op) {
  const bool acts = op != PointwiseId::identity;
  return {.y = acts, .dy = acts, .between = acts, .output_op = op};
}

void forward(ForwardContext& c, PointwiseId op) {
  if (op == PointwiseId::identity) return;
  const Tensor& y = c.y[0];
  const ProbeSinks& z = c.between[0];
  if (bias_in_product(op, *c.backend))
    c.backend->pointwise_forward({.op = op, .dtype = y.dtype(), .n = y.elements(), .x = y.data, .y = y.data,
                                  .x_stats = z.stats, .y_stats = c.y_stats, .x_exponents = z.exponents, .y_exponents = c.y_exponents});
  else
    c.backend->bias_activation_forward({.op = op, .dtype = y.dtype(), .rows = y.shape().rows(), .columns = columns_of(y),
                                        .x = y.data, .bias = c.parameters[1].data, .y = y.data, .z_stats = z.stats, .y_stats = c.y_stats,
                                        .z_exponents = z.exponents, .y_exponents = c.y_exponents});
}

const void* backward(BackwardContext& c, PointwiseId op) {
  const Tensor& dy = c.dy[0];
  if (op != PointwiseId::identity) {
    c.backend->bias_activation_backward({.op = op, .dtype = dy.dtype(), .rows = dy.shape().rows(), .columns = columns_of(dy),
                                         .saved = c.y[0].data, .dy = dy.data, .dx = c.scratch,
                                         .dbias = c.dparameters[1].data, .bias_mode = c.parameter_modes[1],
                                         .dy_stats = c.dy_stats, .dx_stats = c.between[0].stats,
                                         .dy_exponents = c.dy_exponents, .dx_exponents = c.between[0].exponents});
    return c.scratch;
  }
  if (c.dparameters.size() > 1)
    c.backend->column_sum({.dtype = dy.dtype(), .rows = dy.shape().rows(), .columns = columns_of(dy), .x = dy.data,
                           .y = c.dparameters[1].data, .mode = c.parameter_modes[1]});
  return dy.data;
}

}  // namespace gradflow::behind
