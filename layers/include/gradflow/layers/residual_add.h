// The addition of a residual block, with gates.
#pragma once

#include <string>

#include "gradflow/engine/layer.h"

namespace gradflow {

// y = g_skip * skip + (g_branch * scale) * branch; inputs in this order, of equal shape.
// The state "gates" holds four floats in device memory (kernels::Gates), all 1 in an ordinary network: 0
// removes a path, forward and backward separately, without planning or recording anew.
// scale is a constant of the network (Stable ResNet 1/sqrt(L), ordinary 1).
//
// Fuses with ReLU: same bits on the host, one pass each way instead of two. Statistics of the branch, the sum and the
// output ride along, and of their gradients.
class ResidualAdd final : public Layer {
 public:
  explicit ResidualAdd(double scale = 1);

  double scale() const noexcept { return scale_; }
  PointwiseId op() const noexcept { return op_; }
  std::string_view type() const noexcept override { return type_; }
  Inference infer(std::span<const TensorSpec> inputs) const override;
  std::shared_ptr<const Layer> fuse(const Layer& next, std::size_t operand) const override;
  FusedStats fused_stats() const noexcept override {
    return {.x = true, .y = true, .dy = true, .dx = true, .input = 1, .between = acts(),
            .between_costs_host = true, .output_op = op_};
  }
  void forward(ForwardContext& c) const override;
  void backward(BackwardContext& c) const override;

 private:
  bool acts() const { return op_ != PointwiseId::identity; }

  double scale_;
  PointwiseId op_ = PointwiseId::identity;
  std::string type_ = "residual_add";
};

}  // namespace gradflow
