// Pooling over images [batch, height, width, channels], and the parameter-free shortcut of residual networks.
#pragma once

#include "gradflow/engine/layer.h"

namespace gradflow {

struct PoolOptions {
  std::int64_t kernel_h = 2, kernel_w = 2;
  std::int64_t stride_h = 2, stride_w = 2;
  std::int64_t pad_h = 0, pad_w = 0;  // at most half a window
};

// The largest of each window; ties and NaN as kernels::MaxPoolForward says. Saves an index per output.
class MaxPool final : public Layer {
 public:
  explicit MaxPool(const PoolOptions& options);

  std::string_view type() const noexcept override { return "max_pool"; }
  Inference infer(std::span<const TensorSpec> inputs) const override;
  void forward(ForwardContext& c) const override;
  void backward(BackwardContext& c) const override;

 private:
  PoolOptions options_;
};

// The mean of each window, padding counted as zeros.
class AveragePool final : public Layer {
 public:
  explicit AveragePool(const PoolOptions& options);

  std::string_view type() const noexcept override { return "average_pool"; }
  Inference infer(std::span<const TensorSpec> inputs) const override;
  void forward(ForwardContext& c) const override;
  void backward(BackwardContext& c) const override;

 private:
  PoolOptions options_;
};

// The mean over all pixels: [batch, height, width, channels] -> [batch, channels].
class GlobalAveragePool final : public Layer {
 public:
  std::string_view type() const noexcept override { return "global_average_pool"; }
  Inference infer(std::span<const TensorSpec> inputs) const override;
  void forward(ForwardContext& c) const override;
  void backward(BackwardContext& c) const override;
};

// Every stride-th pixel of every stride-th row, and zeros for the channels that are new: He et al. 2015,
// option A. [batch, height, width, channels] -> [batch, ceil(height/stride), ceil(width/stride), outputs].
class ZeroPadShortcut final : public Layer {
 public:
  ZeroPadShortcut(std::int64_t outputs, std::int64_t stride);

  std::string_view type() const noexcept override { return "shortcut"; }
  Inference infer(std::span<const TensorSpec> inputs) const override;
  void forward(ForwardContext& c) const override;
  void backward(BackwardContext& c) const override;

 private:
  kernels::ShortcutShape shape(const TensorSpec& x) const;
  std::int64_t outputs_, stride_;
};

}  // namespace gradflow
