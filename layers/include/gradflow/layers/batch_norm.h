// Batch normalization over the last (channel) dimension. Ioffe & Szegedy 2015 (1502.03167).
#pragma once

#include <string>

#include "gradflow/engine/layer.h"

namespace gradflow {

struct BatchNormOptions {
  double momentum = 0.1;  // running = (1 - momentum) * running + momentum * batch (PyTorch's convention)
  double epsilon = 1e-5;
  bool affine = true;     // parameters "scale" and "shift", without weight decay
  bool torch_names = false;  // "weight" and "bias" instead, and "running_var": what PyTorch's files call them
};

// y = scale * (x - mean) / sqrt(var + epsilon) + shift, statistics over all leading dimensions: of the batch
// in training (biased variance), running ones in evaluation. States "running_mean" and "running_variance"
// (unbiased). Backward reads x and the saved batch statistics.
//
// Fuses with a residual addition of which it is the branch (then its inputs are x and the skip), and with an
// activation that saves its output: same bits on the host, one pass each way instead of two or three. Statistics of
// everything but the skip ride along, fused or not.
class BatchNorm final : public Layer {
 public:
  explicit BatchNorm(const BatchNormOptions& options = {});

  std::string_view type() const noexcept override { return type_; }
  Inference infer(std::span<const TensorSpec> inputs) const override;
  std::shared_ptr<const Layer> fuse(const Layer& next, std::size_t operand) const override;
  FusedStats fused_stats() const noexcept override {
    return {.x = true, .y = true, .dy = true, .dx = true, .between = acts() || adds_,
            .between_costs_host = true, .output_op = op_};
  }
  void forward(ForwardContext& c) const override;
  void backward(BackwardContext& c) const override;

 private:
  bool acts() const { return op_ != PointwiseId::identity; }

  BatchNormOptions options_;
  std::string type_ = "batch_norm";
  bool adds_ = false;
  double branch_scale_ = 1;
  PointwiseId op_ = PointwiseId::identity;
};

}  // namespace gradflow
