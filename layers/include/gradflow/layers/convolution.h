// Two-dimensional convolution over images [batch, height, width, channels].
#pragma once

#include <memory>
#include <string>

#include "gradflow/engine/layer.h"

namespace gradflow {

struct ConvolutionOptions {
  std::int64_t outputs = 1;
  std::int64_t kernel_h = 3, kernel_w = 3;
  std::int64_t stride_h = 1, stride_w = 1;
  std::int64_t pad_h = 0, pad_w = 0;  // zeros on each side
  std::int64_t groups = 1;            // divides channels and outputs
  bool bias = false;                  // batch norm, which usually follows, takes its place
  double weight_factor = 1;           // on the initial weights (ParameterSpec::factor)

  // A square window with "same" padding for stride 1: (kernel - 1) / 2.
  static ConvolutionOptions square(std::int64_t outputs, std::int64_t kernel, std::int64_t stride = 1) {
    return {.outputs = outputs,
            .kernel_h = kernel,
            .kernel_w = kernel,
            .stride_h = stride,
            .stride_w = stride,
            .pad_h = (kernel - 1) / 2,
            .pad_w = (kernel - 1) / 2};
  }
};

// y[batch, (height + 2 pad - kernel) / stride + 1, ..., outputs]; the formula is kernels::ConvolutionDesc's.
// Parameters: "weight" [outputs, kernel_h, kernel_w, channels / groups], which PyTorch's
// [outputs, channels / groups, kernel_h, kernel_w] becomes by permute(0, 2, 3, 1), with
// fan_in = kernel_h kernel_w channels / groups and fan_out = kernel_h kernel_w outputs / groups; "bias"
// [outputs]. Backward reads x. Fuses as a linear layer does.
class Convolution final : public Layer {
 public:
  explicit Convolution(const ConvolutionOptions& options);

  std::string_view type() const noexcept override { return type_; }
  Inference infer(std::span<const TensorSpec> inputs) const override;
  std::unique_ptr<Prepared> prepare(std::span<const TensorSpec> inputs, Backend& backend) const override;
  std::shared_ptr<const Layer> fuse(const Layer& next, std::size_t operand) const override;
  FusedStats fused_stats() const noexcept override;
  void forward(ForwardContext& c) const override;
  void backward(BackwardContext& c) const override;

 private:
  kernels::ConvolutionDesc describe(const TensorSpec& x) const;
  ConvolutionOptions options_;
  PointwiseId op_ = PointwiseId::identity;  // behind it
  std::string type_ = "convolution";
};

}  // namespace gradflow
