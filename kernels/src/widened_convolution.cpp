#include "widened_convolution.h"

#include <cstddef>
#include <string>
#include <utility>

namespace gradflow::kernels {
namespace {

class WidenedConvolution final : public Convolution {
 public:
  WidenedConvolution(const ConvolutionDesc& d, std::shared_ptr<Convolution> wide, std::function<void(const Cast&)> cast)
      : cast_(std::move(cast)),
        wide_(std::move(wide)),
        x_(static_cast<std::size_t>(d.batch * d.height * d.width * d.channels)),
        w_(static_cast<std::size_t>(d.outputs * d.kernel_h * d.kernel_w * (d.channels / d.groups))),
        y_(static_cast<std::size_t>(d.batch * d.out_height() * d.out_width() * d.outputs)) {}

  std::size_t forward_workspace() const noexcept override {
    return room(x_) + room(w_) + room(y_) + wide_->forward_workspace();
  }
  std::size_t backward_data_workspace() const noexcept override {
    return room(x_) + room(w_) + room(y_) + wide_->backward_data_workspace();
  }
  std::size_t backward_weights_workspace() const noexcept override {
    return room(x_) + room(y_) + wide_->backward_weights_workspace();
  }

  std::string description(ConvolutionPass pass) const override { return "widened to f32: " + wide_->description(pass); }

  void forward(const void* x, const void* w, const void* bias, void* y, void* workspace) override {
    std::byte* at = static_cast<std::byte*>(workspace);
    const float* wide_x = widened(x, x_, at);
    const float* wide_w = widened(w, w_, at);
    float* wide_y = take(y_, at);
    wide_->forward(wide_x, wide_w, bias, wide_y, at);
    cast_({.from = DType::f32, .to = DType::bf16, .n = y_, .x = wide_y, .y = y});
  }
  void backward_data(const void* dy, const void* w, void* dx, GradMode mode, void* workspace) override {
    if (mode == GradMode::none) return;
    std::byte* at = static_cast<std::byte*>(workspace);
    const float* wide_dy = widened(dy, y_, at);
    const float* wide_w = widened(w, w_, at);
    float* wide_dx = mode == GradMode::accumulate ? widened(dx, x_, at) : take(x_, at);
    wide_->backward_data(wide_dy, wide_w, wide_dx, mode, at);
    cast_({.from = DType::f32, .to = DType::bf16, .n = x_, .x = wide_dx, .y = dx});
  }
  void backward_weights(const void* x, const void* dy, void* dw, GradMode mode, void* workspace) override {
    if (mode == GradMode::none) return;
    std::byte* at = static_cast<std::byte*>(workspace);
    const float* wide_x = widened(x, x_, at);
    const float* wide_dy = widened(dy, y_, at);
    wide_->backward_weights(wide_x, wide_dy, dw, mode, at);
  }

 private:
  static std::size_t room(std::size_t n) { return (n * sizeof(float) + 255) / 256 * 256; }
  static float* take(std::size_t n, std::byte*& at) {
    auto* taken = reinterpret_cast<float*>(at);
    at += room(n);
    return taken;
  }
  float* widened(const void* narrow, std::size_t n, std::byte*& at) const {
    float* wide = take(n, at);
    cast_({.from = DType::bf16, .to = DType::f32, .n = n, .x = narrow, .y = wide});
    return wide;
  }

  std::function<void(const Cast&)> cast_;
  std::shared_ptr<Convolution> wide_;
  std::size_t x_, w_, y_;
};

}  // namespace

std::unique_ptr<Convolution> make_widened_convolution(const ConvolutionDesc& desc, std::shared_ptr<Convolution> wide,
                                                      std::function<void(const Cast&)> cast) {
  return std::make_unique<WidenedConvolution>(desc, std::move(wide), std::move(cast));
}

}  // namespace gradflow::kernels
