// One learned number for a whole tensor: the scalars of SkipInit, ReZero and Fixup.
#pragma once

#include "gradflow/engine/layer.h"

namespace gradflow {

struct ScalarOptions {
  bool scale = true, shift = false;  // at least one
  double initial_scale = 1;          // the shift starts at 0
};

// y = scale * x + shift with parameters "scale" [1] and "shift" [1], without weight decay. Any shape. With a
// scale, backward reads x: dscale = <x, dy>, dshift = sum dy, both summed in f64 in a fixed order.
class Scalar final : public Layer {
 public:
  explicit Scalar(const ScalarOptions& options = {});

  std::string_view type() const noexcept override { return "scalar"; }
  Inference infer(std::span<const TensorSpec> inputs) const override;
  void forward(ForwardContext& c) const override;
  void backward(BackwardContext& c) const override;

 private:
  ScalarOptions options_;
};

}  // namespace gradflow
