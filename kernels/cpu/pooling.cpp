// Pooling and the parameter-free shortcut. Tasks are rows of outputs forward and rows of inputs backward, so
// no two tasks write the same element; inner loops run over channels. Sums are formed in arithmetic's type
// and stored once.
#include "functions.h"
#include "storage.h"

namespace gradflow::kernels::cpu {
namespace {

std::size_t size(std::int64_t n) { return static_cast<std::size_t>(n); }

// body(image, row, element of the row's first pixel) for all rows of `height` images, `width` pixels wide.
template <class Body>
void for_each_row(const Context& context, std::int64_t batch, std::int64_t height, std::int64_t width,
                  std::int64_t channels, const Body& body) {
  if (height <= 0 || width <= 0 || channels <= 0) return;
  for_each_index(context, size(batch * height), size(batch * height * width * channels) >= kSerialCheap,
                 [&](std::size_t k) {
                   const std::int64_t row = static_cast<std::int64_t>(k);
                   body(row / height, row % height, row * width * channels);
                 });
}

// The taps [begin, end) of the window at output p that lie inside the image.
struct Taps {
  std::int64_t begin, end;
};
Taps taps(std::int64_t p, std::int64_t stride, std::int64_t pad, std::int64_t kernel, std::int64_t extent) {
  const std::int64_t first = p * stride - pad;
  return {std::max<std::int64_t>(0, first), std::min(extent, first + kernel)};
}

// The outputs [begin, end) whose windows cover input i.
Taps windows(std::int64_t i, std::int64_t stride, std::int64_t pad, std::int64_t kernel,
             std::int64_t outputs) {
  const std::int64_t from = i + pad - kernel + 1;
  return {from <= 0 ? 0 : (from + stride - 1) / stride, std::min(outputs, (i + pad) / stride + 1)};
}

constexpr std::int64_t kBlock = 64;  // channels

// Adds to (or replaces) one pixel of a gradient what add(first channel, count, sums) adds to `sums`.
template <class S, class Add>
void put_gradient(S* dx, std::int64_t channels, GradMode mode, const Add& add) {
  for (std::int64_t block = 0; block < channels; block += kBlock) {
    const std::int64_t width = std::min(kBlock, channels - block);
    Arithmetic<S> sum[kBlock] = {};
    if (mode == GradMode::accumulate)
      for (std::int64_t k = 0; k < width; ++k) sum[k] = widen(dx[block + k]);
    add(block, width, sum);
    for (std::int64_t k = 0; k < width; ++k) dx[block + k] = narrow<S>(sum[k]);
  }
}

template <class S>
void max_forward(const Context& context, const MaxPoolForward& a) {
  const PoolWindow& w = a.window;
  const std::int64_t out_w = w.out_width(), c = w.channels;
  for_each_row(
      context, w.batch, w.out_height(), out_w, c, [&](std::int64_t b, std::int64_t p, std::int64_t at) {
        const S* x = static_cast<const S*>(a.x) + b * w.height * w.width * c;
        const Taps rows = taps(p, w.stride_h, w.pad_h, w.kernel_h, w.height);
        for (std::int64_t q = 0; q < out_w; ++q) {
          const Taps columns = taps(q, w.stride_w, w.pad_w, w.kernel_w, w.width);
          for (std::int64_t block = 0; block < c; block += kBlock) {
            const std::int64_t width = std::min(kBlock, c - block), to = at + q * c + block;
            Arithmetic<S> best[kBlock];
            std::int32_t winners[kBlock];
            const std::int64_t top_left = rows.begin * w.width + columns.begin;
            for (std::int64_t k = 0; k < width; ++k) {
              best[k] = widen(x[top_left * c + block + k]);
              winners[k] = static_cast<std::int32_t>(top_left);
            }
            for (std::int64_t i = rows.begin; i < rows.end; ++i)
              for (std::int64_t j = columns.begin; j < columns.end; ++j) {
                const S* from = x + (i * w.width + j) * c + block;
                const auto here = static_cast<std::int32_t>(i * w.width + j);
                for (std::int64_t k = 0; k < width; ++k) {
                  const Arithmetic<S> v = widen(from[k]);
                  const bool wins = (v > best[k]) | (v != v);
                  winners[k] = wins ? here : winners[k];
                  best[k] = wins ? v : best[k];
                }
              }
            for (std::int64_t k = 0; k < width; ++k) static_cast<S*>(a.y)[to + k] = narrow<S>(best[k]);
            if (a.winners) std::copy_n(winners, width, a.winners + to);
          }
        }
      });
}

template <class S>
void max_backward(const Context& context, const MaxPoolBackward& a) {
  const PoolWindow& w = a.window;
  const std::int64_t out_h = w.out_height(), out_w = w.out_width(), c = w.channels;
  for_each_row(context, w.batch, w.height, w.width, c, [&](std::int64_t b, std::int64_t i, std::int64_t at) {
    const Taps rows = windows(i, w.stride_h, w.pad_h, w.kernel_h, out_h);
    for (std::int64_t j = 0; j < w.width; ++j) {
      const Taps columns = windows(j, w.stride_w, w.pad_w, w.kernel_w, out_w);
      const auto here = static_cast<std::int32_t>(i * w.width + j);
      const auto add = [&](std::int64_t block, std::int64_t width, auto* sum) {
        for (std::int64_t p = rows.begin; p < rows.end; ++p)
          for (std::int64_t q = columns.begin; q < columns.end; ++q) {
            const std::int64_t from = ((b * out_h + p) * out_w + q) * c + block;
            const S* dy = static_cast<const S*>(a.dy) + from;
            const std::int32_t* winners = a.winners + from;
            for (std::int64_t k = 0; k < width; ++k)
              sum[k] += winners[k] == here ? widen(dy[k]) : Arithmetic<S>(0);
          }
      };
      put_gradient(static_cast<S*>(a.dx) + at + j * c, c, a.mode, add);
    }
  });
}

template <class S>
void average_forward(const Context& context, const AveragePoolForward& a) {
  const PoolWindow& w = a.window;
  const std::int64_t out_w = w.out_width(), c = w.channels;
  const double share = 1.0 / static_cast<double>(w.kernel_h * w.kernel_w);
  for_each_row(context, w.batch, w.out_height(), out_w, c,
               [&](std::int64_t b, std::int64_t p, std::int64_t at) {
                 const S* x = static_cast<const S*>(a.x) + b * w.height * w.width * c;
                 const Taps rows = taps(p, w.stride_h, w.pad_h, w.kernel_h, w.height);
                 for (std::int64_t q = 0; q < out_w; ++q) {
                   const Taps columns = taps(q, w.stride_w, w.pad_w, w.kernel_w, w.width);
                   S* y = static_cast<S*>(a.y) + at + q * c;
                   for (std::int64_t block = 0; block < c; block += kBlock) {
                     const std::int64_t width = std::min(kBlock, c - block);
                     double sum[kBlock] = {};
                     for (std::int64_t i = rows.begin; i < rows.end; ++i)
                       for (std::int64_t j = columns.begin; j < columns.end; ++j) {
                         const S* from = x + (i * w.width + j) * c + block;
                         for (std::int64_t k = 0; k < width; ++k)
                           sum[k] += static_cast<double>(widen(from[k]));
                       }
                     for (std::int64_t k = 0; k < width; ++k)
                       y[block + k] = narrow<S>(static_cast<Arithmetic<S>>(sum[k] * share));
                   }
                 }
               });
}

template <class S>
void average_backward(const Context& context, const AveragePoolBackward& a) {
  const PoolWindow& w = a.window;
  const std::int64_t out_h = w.out_height(), out_w = w.out_width(), c = w.channels;
  const auto share = static_cast<Arithmetic<S>>(1.0 / static_cast<double>(w.kernel_h * w.kernel_w));
  for_each_row(context, w.batch, w.height, w.width, c, [&](std::int64_t b, std::int64_t i, std::int64_t at) {
    const Taps rows = windows(i, w.stride_h, w.pad_h, w.kernel_h, out_h);
    for (std::int64_t j = 0; j < w.width; ++j) {
      const Taps columns = windows(j, w.stride_w, w.pad_w, w.kernel_w, out_w);
      const auto add = [&](std::int64_t block, std::int64_t width, auto* sum) {
        for (std::int64_t p = rows.begin; p < rows.end; ++p)
          for (std::int64_t q = columns.begin; q < columns.end; ++q) {
            const S* dy = static_cast<const S*>(a.dy) + ((b * out_h + p) * out_w + q) * c + block;
            for (std::int64_t k = 0; k < width; ++k) sum[k] += share * widen(dy[k]);
          }
      };
      put_gradient(static_cast<S*>(a.dx) + at + j * c, c, a.mode, add);
    }
  });
}

template <class S>
void shortcut_forward_rows(const Context& context, const ShortcutForward& a) {
  const ShortcutShape& s = a.shape;
  for_each_row(context, s.batch, s.out_height(), s.out_width(), s.outputs,
               [&](std::int64_t b, std::int64_t p, std::int64_t at) {
                 const S* x =
                     static_cast<const S*>(a.x) + (b * s.height + p * s.stride) * s.width * s.channels;
                 S* y = static_cast<S*>(a.y) + at;
                 for (std::int64_t q = 0; q < s.out_width(); ++q, y += s.outputs) {
                   std::copy_n(x + q * s.stride * s.channels, s.channels, y);
                   std::fill_n(y + s.channels, s.outputs - s.channels, S{});
                 }
               });
}

template <class S>
void shortcut_backward_rows(const Context& context, const ShortcutBackward& a) {
  const ShortcutShape& s = a.shape;
  const bool accumulate = a.mode == GradMode::accumulate;
  for_each_row(
      context, s.batch, s.height, s.width, s.channels, [&](std::int64_t b, std::int64_t i, std::int64_t at) {
        S* dx = static_cast<S*>(a.dx) + at;
        const bool taken = i % s.stride == 0;
        const S* dy =
            static_cast<const S*>(a.dy) + (b * s.out_height() + i / s.stride) * s.out_width() * s.outputs;
        for (std::int64_t j = 0; j < s.width; ++j, dx += s.channels) {
          const S* from = dy + j / s.stride * s.outputs;
          if (!taken || j % s.stride != 0) {
            if (!accumulate) std::fill_n(dx, s.channels, S{});
          } else if (accumulate) {
            for (std::int64_t c = 0; c < s.channels; ++c) dx[c] = narrow<S>(widen(dx[c]) + widen(from[c]));
          } else {
            std::copy_n(from, s.channels, dx);
          }
        }
      });
}

}  // namespace

void max_pool_forward(const Context& context, const MaxPoolForward& a) {
  visit_stored(a.dtype, [&]<class S>() { max_forward<S>(context, a); });
}
void max_pool_backward(const Context& context, const MaxPoolBackward& a) {
  if (a.mode == GradMode::none) return;
  visit_stored(a.dtype, [&]<class S>() { max_backward<S>(context, a); });
}
void average_pool_forward(const Context& context, const AveragePoolForward& a) {
  visit_stored(a.dtype, [&]<class S>() { average_forward<S>(context, a); });
}
void average_pool_backward(const Context& context, const AveragePoolBackward& a) {
  if (a.mode == GradMode::none) return;
  visit_stored(a.dtype, [&]<class S>() { average_backward<S>(context, a); });
}
void shortcut_forward(const Context& context, const ShortcutForward& a) {
  visit_stored(a.dtype, [&]<class S>() { shortcut_forward_rows<S>(context, a); });
}
void shortcut_backward(const Context& context, const ShortcutBackward& a) {
  if (a.mode == GradMode::none) return;
  visit_stored(a.dtype, [&]<class S>() { shortcut_backward_rows<S>(context, a); });
}

}  // namespace gradflow::kernels::cpu
