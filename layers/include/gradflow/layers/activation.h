// Pointwise activation: any operation that gradflow/kernels/pointwise_ops.h lists.
#pragma once

#include "gradflow/engine/layer.h"

namespace gradflow {

// y = op(x), any shape; runs in place where nobody else reads x. Statistics of all four operands ride along.
class Activation final : public Layer {
 public:
  explicit Activation(PointwiseId op) : info_(info_of(op)) {}

  PointwiseId op() const noexcept { return info_.id; }
  std::string_view type() const noexcept override { return info_.name; }
  Inference infer(std::span<const TensorSpec> inputs) const override;
  FusedStats fused_stats() const noexcept override { return {.x = true, .y = true, .dy = true, .dx = true, .output_op = info_.id}; }
  void forward(ForwardContext& c) const override;
  void backward(BackwardContext& c) const override;

 private:
  PointwiseInfo info_;
};

}  // namespace gradflow
