// Batch normalization over the last (channel) dimension. Ioffe & Szegedy 2015 (1502.03167).
#pragma once

#include "gradflow/engine/layer.h"

namespace gradflow {

struct BatchNormOptions {
  double momentum = 0.1;  // running = (1 - momentum) * running + momentum * batch (PyTorch's convention)
  double epsilon = 1e-5;
  bool affine = true;     // parameters "scale" and "shift", without weight decay
};

// y = scale * (x - mean) / sqrt(var + epsilon) + shift, statistics over all leading dimensions: of the batch
// in training (biased variance), running ones in evaluation. States "running_mean" and "running_variance"
// (unbiased). Backward reads x and the saved batch statistics.
class BatchNorm final : public Layer {
 public:
  explicit BatchNorm(const BatchNormOptions& options = {});

  std::string_view type() const noexcept override { return "batch_norm"; }
  Inference infer(std::span<const TensorSpec> inputs) const override;
  void forward(ForwardContext& c) const override;
  void backward(BackwardContext& c) const override;

 private:
  BatchNormOptions options_;
};

}  // namespace gradflow
