// The addition of a residual block, with gates.
#pragma once

#include "gradflow/engine/layer.h"

namespace gradflow {

// y = g_skip * skip + (g_branch * scale) * branch; inputs in this order, of equal shape.
// The state "gates" holds four floats in device memory (kernels::Gates), all 1 in an ordinary network: 0
// removes a path, forward and backward separately, without planning or recording anew.
// scale is a constant of the network (SkipInit 0, Stable ResNet 1/sqrt(L), ordinary 1).
class ResidualAdd final : public Layer {
 public:
  explicit ResidualAdd(double scale = 1);

  double scale() const noexcept { return scale_; }
  std::string_view type() const noexcept override { return "residual_add"; }
  Inference infer(std::span<const TensorSpec> inputs) const override;
  FusedStats fused_stats() const noexcept override { return {.x = false, .y = true, .dy = true, .dx = false}; }
  void forward(ForwardContext& c) const override;
  void backward(BackwardContext& c) const override;

 private:
  double scale_;
};

}  // namespace gradflow
