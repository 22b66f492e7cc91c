// Fully connected layer.
#pragma once

#include "gradflow/engine/layer.h"

namespace gradflow {

// y[rows, out] = x[rows, in] * weight[out, in]^T + bias[out]; leading dimensions of x are kept.
// Parameters: "weight" [out, in] (fan_in = in, fan_out = out), "bias" [out] unless switched off.
// Backward reads x: dx = dy * weight, dweight = dy^T * x, dbias = column sums of dy.
class Linear final : public Layer {
 public:
  // weight_factor: on the initial weights (ParameterSpec::factor).
  explicit Linear(std::int64_t out, bool bias = true, double weight_factor = 1);

  std::string_view type() const noexcept override { return "linear"; }
  Inference infer(std::span<const TensorSpec> inputs) const override;
  std::unique_ptr<Prepared> prepare(std::span<const TensorSpec> inputs, Backend& backend) const override;
  void forward(ForwardContext& c) const override;
  void backward(BackwardContext& c) const override;

 private:
  std::int64_t out_;
  bool bias_;
  double weight_factor_;
};

}  // namespace gradflow
