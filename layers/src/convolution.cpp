#include "gradflow/layers/convolution.h"

#include <algorithm>
#include <string>

#include "activation_behind.h"
#include "images.h"

namespace gradflow {
namespace {

struct Booked final : Prepared {
  bool bias = false;  // in the convolution
  std::shared_ptr<kernels::Convolution> convolution;
};

}  // namespace

Convolution::Convolution(const ConvolutionOptions& o) : options_(o) {
  if (o.outputs < 1 || o.kernel_h < 1 || o.kernel_w < 1 || o.stride_h < 1 || o.stride_w < 1 || o.groups < 1 ||
      o.pad_h < 0 || o.pad_w < 0)
    throw UserError(
        fmt::format("a convolution with {} outputs, window {}x{}, stride {}x{}, padding {}x{}, {} groups: "
                    "all but the padding "
                    "must be at least 1",
                    o.outputs, o.kernel_h, o.kernel_w, o.stride_h, o.stride_w, o.pad_h, o.pad_w, o.groups));
}

kernels::ConvolutionDesc Convolution::describe(const TensorSpec& x) const {
  const ConvolutionOptions& o = options_;
  return {.dtype = x.dtype,
          .batch = x.shape[0],
          .height = x.shape[1],
          .width = x.shape[2],
          .channels = x.shape[3],
          .outputs = o.outputs,
          .kernel_h = o.kernel_h,
          .kernel_w = o.kernel_w,
          .stride_h = o.stride_h,
          .stride_w = o.stride_w,
          .pad_h = o.pad_h,
          .pad_w = o.pad_w,
          .groups = o.groups,
          .bias = o.bias};
}

Inference Convolution::infer(std::span<const TensorSpec> inputs) const {
  const TensorSpec& x = image_input(inputs, "a convolution");
  const ConvolutionOptions& o = options_;
  const std::int64_t channels = x.shape[3];
  if (channels < 1 || channels % o.groups != 0 || o.outputs % o.groups != 0)
    throw UserError(fmt::format("{} channels and {} outputs do not divide into {} groups", channels,
                                o.outputs, o.groups));
  require_fit(x, o.kernel_h, o.kernel_w, o.pad_h, o.pad_w);
  const kernels::ConvolutionDesc d = describe(x);
  const std::int64_t in = channels / o.groups, taps = o.kernel_h * o.kernel_w;
  Inference r;
  r.outputs = {{{d.batch, d.out_height(), d.out_width(), o.outputs}, x.dtype}};
  r.parameters = {{.name = "weight",
                   .shape = {o.outputs, o.kernel_h, o.kernel_w, in},
                   .role = ParameterRole::weight,
                   .fan_in = taps * in,
                   .fan_out = taps * (o.outputs / o.groups),
                   .factor = o.weight_factor,
                   .decay = true,
                   .multiplied = true}};
  if (o.bias)
    r.parameters.push_back({.name = "bias",
                            .shape = {o.outputs},
                            .role = ParameterRole::bias,
                            .fan_in = taps * in,
                            .fan_out = taps * (o.outputs / o.groups),
                            .decay = false});
  r.backward_reads_input = {0};
  const double y = static_cast<double>(r.outputs[0].elements()),
               w = static_cast<double>(o.outputs * taps * in);
  const double bytes_x = static_cast<double>(x.bytes()), bytes_y = static_cast<double>(r.outputs[0].bytes());
  const double bytes_w = w * static_cast<double>(size_of(x.dtype)),
               bytes_dw = w * static_cast<double>(size_of(arithmetic_type(x.dtype))),
               flops = 2 * y * static_cast<double>(taps * in);
  r.forward = {bytes_x + bytes_y + bytes_w, flops};
  r.backward = {2 * bytes_x + 2 * bytes_y + bytes_w + bytes_dw, 2 * flops};
  r.dx_costs = {{bytes_x + bytes_y + bytes_w, flops}};
  behind::add_to(r, op_);
  return r;
}

std::shared_ptr<const Layer> Convolution::fuse(const Layer& next, std::size_t) const {
  const PointwiseId op = behind::op_of(next);
  if (!options_.bias || op_ != PointwiseId::identity || op == PointwiseId::identity) return nullptr;
  auto fused = std::make_shared<Convolution>(*this);
  fused->op_ = op;
  fused->type_ += "+" + std::string(next.type());
  return fused;
}

FusedStats Convolution::fused_stats() const noexcept { return behind::fused_stats(op_); }

std::unique_ptr<Prepared> Convolution::prepare(std::span<const TensorSpec> inputs, Backend& backend) const {
  auto p = std::make_unique<Booked>();
  kernels::ConvolutionDesc desc = describe(inputs[0]);
  desc.bias = p->bias = options_.bias && behind::bias_in_product(op_, backend);
  p->convolution = backend.prepare_convolution(desc);
  using kernels::ConvolutionPass;
  p->forward_description = p->convolution->description(ConvolutionPass::forward);
  const std::string data = p->convolution->description(ConvolutionPass::backward_data);
  const std::string weights = p->convolution->description(ConvolutionPass::backward_weights);
  if (!data.empty() || !weights.empty()) p->backward_description = "dx: " + data + "; dW: " + weights;
  p->forward_workspace = p->convolution->forward_workspace();
  p->backward_workspace =
      std::max(p->convolution->backward_data_workspace(), p->convolution->backward_weights_workspace());
  return p;
}

void Convolution::forward(ForwardContext& c) const {
  auto& p = static_cast<Booked&>(*c.prepared);
  p.convolution->forward(c.x[0].data, c.parameters[0].data, p.bias ? c.parameters[1].data : nullptr, c.y[0].data,
                         c.workspace);
  behind::forward(c, op_);
}

void Convolution::backward(BackwardContext& c) const {
  kernels::Convolution& convolution = *static_cast<Booked&>(*c.prepared).convolution;
  const void* dy = behind::backward(c, op_);
  convolution.backward_data(dy, c.parameters[0].data, c.dx[0].data, c.modes[0], c.workspace);
  convolution.backward_weights(c.x[0].data, dy, c.dparameters[0].data, c.parameter_modes[0], c.workspace);
}

}  // namespace gradflow
