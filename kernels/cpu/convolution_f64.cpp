// Convolutions in f64, for gradient checks of small networks: the definition, as loops.
#include "functions.h"

namespace gradflow::kernels::cpu {
namespace {

class ConvolutionF64 final : public Convolution {
 public:
  ConvolutionF64(const Context& context, const ConvolutionDesc& desc)
      : context_(context), d_(desc), in_(desc.channels / desc.groups), out_(desc.outputs / desc.groups) {}

  std::size_t forward_workspace() const noexcept override { return 0; }
  std::size_t backward_data_workspace() const noexcept override { return 0; }
  std::size_t backward_weights_workspace() const noexcept override { return 0; }

  void forward(const void* x, const void* w, const void* bias, void* y, void*) override {
    each_row(d_.batch * d_.out_height(), [&](std::int64_t bp) {
      for (std::int64_t q = 0; q < d_.out_width(); ++q)
        for (std::int64_t o = 0; o < d_.outputs; ++o) {
          double sum = bias ? static_cast<const double*>(bias)[o] : 0.0;
          each_tap(bp, q, [&](std::int64_t pixel, std::int64_t tap) {
            const double* from = in(x, pixel, o);
            const double* weights = static_cast<const double*>(w) + (o * taps() + tap) * in_;
            for (std::int64_t c = 0; c < in_; ++c) sum += from[c] * weights[c];
          });
          static_cast<double*>(y)[(bp * d_.out_width() + q) * d_.outputs + o] = sum;
        }
    });
  }

  // One task an image: its outputs add to its own pixels only.
  void backward_data(const void* dy, const void* w, void* dx, GradMode mode, void*) override {
    if (mode == GradMode::none) return;
    const std::int64_t image = d_.height * d_.width * d_.channels;
    each_row(d_.batch, [&](std::int64_t b) {
      double* to = static_cast<double*>(dx);
      if (mode == GradMode::overwrite) std::fill_n(to + b * image, image, 0.0);
      for (std::int64_t p = 0; p < d_.out_height(); ++p)
        for (std::int64_t q = 0; q < d_.out_width(); ++q)
          for (std::int64_t o = 0; o < d_.outputs; ++o) {
            const std::int64_t bp = b * d_.out_height() + p;
            const double g = static_cast<const double*>(dy)[(bp * d_.out_width() + q) * d_.outputs + o];
            each_tap(bp, q, [&](std::int64_t pixel, std::int64_t tap) {
              double* pixels = to + pixel * d_.channels + o / out_ * in_;
              const double* weights = static_cast<const double*>(w) + (o * taps() + tap) * in_;
              for (std::int64_t c = 0; c < in_; ++c) pixels[c] += g * weights[c];
            });
          }
    });
  }

  // One task an output channel: it alone has these weights.
  void backward_weights(const void* x, const void* dy, void* dw, GradMode mode, void*) override {
    if (mode == GradMode::none) return;
    each_row(d_.outputs, [&](std::int64_t o) {
      double* to = static_cast<double*>(dw) + o * taps() * in_;
      if (mode == GradMode::overwrite) std::fill_n(to, taps() * in_, 0.0);
      for (std::int64_t bp = 0; bp < d_.batch * d_.out_height(); ++bp)
        for (std::int64_t q = 0; q < d_.out_width(); ++q) {
          const double g = static_cast<const double*>(dy)[(bp * d_.out_width() + q) * d_.outputs + o];
          each_tap(bp, q, [&](std::int64_t pixel, std::int64_t tap) {
            const double* from = in(x, pixel, o);
            for (std::int64_t c = 0; c < in_; ++c) to[tap * in_ + c] += g * from[c];
          });
        }
    });
  }

 private:
  std::int64_t taps() const { return d_.kernel_h * d_.kernel_w; }
  const double* in(const void* x, std::int64_t pixel, std::int64_t o) const {
    return static_cast<const double*>(x) + pixel * d_.channels + o / out_ * in_;
  }

  // f(input pixel, tap) for the taps of output (row bp of all images, column q) that lie in the image.
  template <class F>
  void each_tap(std::int64_t bp, std::int64_t q, const F& f) const {
    const std::int64_t b = bp / d_.out_height(), p = bp % d_.out_height();
    for (std::int64_t r = 0; r < d_.kernel_h; ++r)
      for (std::int64_t s = 0; s < d_.kernel_w; ++s) {
        const std::int64_t i = p * d_.stride_h + r - d_.pad_h, j = q * d_.stride_w + s - d_.pad_w;
        if (i >= 0 && i < d_.height && j >= 0 && j < d_.width)
          f((b * d_.height + i) * d_.width + j, r * d_.kernel_w + s);
      }
  }

  template <class F>
  void each_row(std::int64_t count, const F& f) const {
    const bool large = d_.batch * d_.out_height() * d_.out_width() * d_.outputs * taps() * in_ >= 100000;
    for_each_index(context_, static_cast<std::size_t>(count), large,
                   [&](std::size_t i) { f(static_cast<std::int64_t>(i)); });
  }

  const Context& context_;
  ConvolutionDesc d_;
  std::int64_t in_, out_;  // channels of a group
};

}  // namespace

std::unique_ptr<Convolution> make_convolution_f64(const Context& context, const ConvolutionDesc& desc) {
  return std::make_unique<ConvolutionF64>(context, desc);
}

}  // namespace gradflow::kernels::cpu
