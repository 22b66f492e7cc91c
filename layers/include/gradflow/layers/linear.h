// Fully connected layer.
#pragma once

#include <memory>
#include <string>

#include "gradflow/engine/layer.h"

namespace gradflow {

// y[rows, out] = x[rows, in] * weight[out, in]^T + bias[out]; leading dimensions of x are kept.
// Parameters: "weight" [out, in] (fan_in = in, fan_out = out), "bias" [out] unless switched off.
// Backward reads x: dx = dy * weight, dweight = dy^T * x, dbias = column sums of dy.
//
// With a bias it fuses with an activation that saves its output: same bits on the host; backward then differentiates
// the activation and sums the bias gradient in one pass.
class Linear final : public Layer {
 public:
  // weight_factor: on the initial weights (ParameterSpec::factor).
  explicit Linear(std::int64_t out, bool bias = true, double weight_factor = 1);

  std::string_view type() const noexcept override { return type_; }
  Inference infer(std::span<const TensorSpec> inputs) const override;
  std::unique_ptr<Prepared> prepare(std::span<const TensorSpec> inputs, Backend& backend) const override;
  std::shared_ptr<const Layer> fuse(const Layer& next, std::size_t operand) const override;
  FusedStats fused_stats() const noexcept override;
  void forward(ForwardContext& c) const override;
  void backward(BackwardContext& c) const override;

 private:
  std::int64_t out_;
  bool bias_;
  double weight_factor_;
  PointwiseId op_ = PointwiseId::identity;  // behind it
  std::string type_ = "linear";
};

}  // namespace gradflow
