#include "gradflow/layers/softmax_cross_entropy.h"

#include <fmt/format.h>

#include "gradflow/kernels/error.h"

namespace gradflow {

Inference SoftmaxCrossEntropy::infer(std::span<const TensorSpec> inputs) const {
  if (inputs.size() != 2) throw UserError(fmt::format("{} inputs: the loss has 2, logits and labels", inputs.size()));
  const TensorSpec &logits = inputs[0], &labels = inputs[1];
  if (logits.shape.rank() != 2 || labels.dtype != DType::i32 || labels.shape != Shape{logits.shape[0]})
    throw UserError(fmt::format("logits {} with labels {}: rank 2 logits and one i32 label a row are needed",
                                logits.to_string(), labels.to_string()));
  Inference r;
  r.is_loss = true;
  r.differentiable = {0};
  r.saved = {logits};  // the gradient itself
  r.gradient_over_saved = 0;
  const double bytes = static_cast<double>(logits.bytes()), n = static_cast<double>(logits.elements());
  r.forward = {2 * bytes, 30 * n};
  return r;
}

void SoftmaxCrossEntropy::forward(ForwardContext& c) const {
  const Tensor& logits = c.x[0];
  c.backend->softmax_cross_entropy({.dtype = logits.dtype(), .rows = logits.shape().rows(),
                                    .classes = static_cast<std::size_t>(logits.shape().back()), .logits = logits.data,
                                    .labels = c.x[1].as<const std::int32_t>(),
                                    .dlogits = c.saved.empty() ? nullptr : c.saved[0].data, .result = c.loss});
}

void SoftmaxCrossEntropy::backward(BackwardContext& c) const {
  const Tensor &gradient = c.saved[0], &dx = c.dx[0];
  if (c.modes[0] == GradMode::none || dx.data == gradient.data) return;
  if (c.modes[0] == GradMode::overwrite) {
    c.backend->copy(dx.data, gradient.data, dx.bytes());
  } else {
    c.backend->pointwise_backward({.op = PointwiseId::identity, .dtype = dx.dtype(), .n = dx.elements(), .saved = gradient.data,
                                   .dy = gradient.data, .dx = dx.data, .mode = GradMode::accumulate});
  }
}

}  // namespace gradflow
