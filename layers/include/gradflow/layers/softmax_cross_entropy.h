// Classification loss.
#pragma once

#include "gradflow/engine/layer.h"

namespace gradflow {

// Mean over rows of -log softmax(logits)[label]. Inputs: logits [rows, classes], labels i32 [rows], each in
// [0, classes). No output: the loss is added to the executor's LossResult, and forward already makes the
// gradient (softmax - onehot)/rows in the same pass, so backward has nothing left to do.
class SoftmaxCrossEntropy final : public Layer {
 public:
  std::string_view type() const noexcept override { return "softmax_cross_entropy"; }
  Inference infer(std::span<const TensorSpec> inputs) const override;
  void forward(ForwardContext& c) const override;
  void backward(BackwardContext& c) const override;
};

}  // namespace gradflow
