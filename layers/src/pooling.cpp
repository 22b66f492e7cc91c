#include "gradflow/layers/pooling.h"

#include "images.h"

namespace gradflow {
namespace {

using kernels::PoolWindow;

void check(const PoolOptions& o) {
  if (o.kernel_h < 1 || o.kernel_w < 1 || o.stride_h < 1 || o.stride_w < 1)
    throw UserError(fmt::format("pooling over {}x{} with stride {}x{}: all must be at least 1", o.kernel_h,
                                o.kernel_w, o.stride_h, o.stride_w));
  if (o.pad_h < 0 || o.pad_w < 0 || 2 * o.pad_h > o.kernel_h || 2 * o.pad_w > o.kernel_w)
    throw UserError(
        fmt::format("pooling over {}x{} with padding {}x{}: it must be between 0 and half the window",
                    o.kernel_h, o.kernel_w, o.pad_h, o.pad_w));
}

PoolWindow window(const TensorSpec& x, const PoolOptions& o) {
  return {.batch = x.shape[0],
          .height = x.shape[1],
          .width = x.shape[2],
          .channels = x.shape[3],
          .kernel_h = o.kernel_h,
          .kernel_w = o.kernel_w,
          .stride_h = o.stride_h,
          .stride_w = o.stride_w,
          .pad_h = o.pad_h,
          .pad_w = o.pad_w};
}

PoolWindow whole_image(const TensorSpec& x) {
  return window(x, {.kernel_h = x.shape[1], .kernel_w = x.shape[2], .stride_h = 1, .stride_w = 1});
}

// Costs of one pass over x and one over y.
Inference pooled(const TensorSpec& x, const TensorSpec& y) {
  Inference r;
  r.outputs = {y};
  const double bytes = static_cast<double>(x.bytes() + y.bytes()), n = static_cast<double>(x.elements());
  r.forward = r.backward = {bytes, n};
  return r;
}

TensorSpec infer_pool(const TensorSpec& x, const PoolOptions& o) {
  require_fit(x, o.kernel_h, o.kernel_w, o.pad_h, o.pad_w);
  const PoolWindow w = window(x, o);
  return {{w.batch, w.out_height(), w.out_width(), w.channels}, x.dtype};
}

}  // namespace

MaxPool::MaxPool(const PoolOptions& options) : options_(options) { check(options); }

Inference MaxPool::infer(std::span<const TensorSpec> inputs) const {
  const TensorSpec& x = image_input(inputs, "max pooling");
  Inference r = pooled(x, infer_pool(x, options_));
  r.saved = {{r.outputs[0].shape, DType::i32}};
  r.forward.bytes += static_cast<double>(r.saved[0].bytes());
  r.backward.bytes += static_cast<double>(r.saved[0].bytes());
  return r;
}

void MaxPool::forward(ForwardContext& c) const {
  c.backend->max_pool_forward({.dtype = c.x[0].dtype(),
                               .window = window(c.x[0].spec, options_),
                               .x = c.x[0].data,
                               .y = c.y[0].data,
                               .winners = c.saved.empty() ? nullptr : c.saved[0].as<std::int32_t>()});
}

void MaxPool::backward(BackwardContext& c) const {
  c.backend->max_pool_backward({.dtype = c.dy[0].dtype(),
                                .window = window(c.x[0].spec, options_),
                                .winners = c.saved[0].as<std::int32_t>(),
                                .dy = c.dy[0].data,
                                .dx = c.dx[0].data,
                                .mode = c.modes[0]});
}

AveragePool::AveragePool(const PoolOptions& options) : options_(options) { check(options); }

Inference AveragePool::infer(std::span<const TensorSpec> inputs) const {
  const TensorSpec& x = image_input(inputs, "average pooling");
  return pooled(x, infer_pool(x, options_));
}

void AveragePool::forward(ForwardContext& c) const {
  c.backend->average_pool_forward(
      {.dtype = c.x[0].dtype(), .window = window(c.x[0].spec, options_), .x = c.x[0].data, .y = c.y[0].data});
}

void AveragePool::backward(BackwardContext& c) const {
  c.backend->average_pool_backward({.dtype = c.dy[0].dtype(),
                                    .window = window(c.x[0].spec, options_),
                                    .dy = c.dy[0].data,
                                    .dx = c.dx[0].data,
                                    .mode = c.modes[0]});
}

Inference GlobalAveragePool::infer(std::span<const TensorSpec> inputs) const {
  const TensorSpec& x = image_input(inputs, "global average pooling");
  require_fit(x, 1, 1, 0, 0);
  return pooled(x, {{x.shape[0], x.shape[3]}, x.dtype});
}

void GlobalAveragePool::forward(ForwardContext& c) const {
  c.backend->average_pool_forward(
      {.dtype = c.x[0].dtype(), .window = whole_image(c.x[0].spec), .x = c.x[0].data, .y = c.y[0].data});
}

void GlobalAveragePool::backward(BackwardContext& c) const {
  c.backend->average_pool_backward({.dtype = c.dy[0].dtype(),
                                    .window = whole_image(c.x[0].spec),
                                    .dy = c.dy[0].data,
                                    .dx = c.dx[0].data,
                                    .mode = c.modes[0]});
}

ZeroPadShortcut::ZeroPadShortcut(std::int64_t outputs, std::int64_t stride)
    : outputs_(outputs), stride_(stride) {
  if (outputs < 1 || stride < 1)
    throw UserError(
        fmt::format("a shortcut to {} channels with stride {}: both must be at least 1", outputs, stride));
}

kernels::ShortcutShape ZeroPadShortcut::shape(const TensorSpec& x) const {
  return {.batch = x.shape[0],
          .height = x.shape[1],
          .width = x.shape[2],
          .channels = x.shape[3],
          .outputs = outputs_,
          .stride = stride_};
}

Inference ZeroPadShortcut::infer(std::span<const TensorSpec> inputs) const {
  const TensorSpec& x = image_input(inputs, "a shortcut");
  if (outputs_ < x.shape[3])
    throw UserError(
        fmt::format("a shortcut from {} channels to {}: it can only add channels", x.shape[3], outputs_));
  const kernels::ShortcutShape s = shape(x);
  return pooled(x, {{s.batch, s.out_height(), s.out_width(), outputs_}, x.dtype});
}

void ZeroPadShortcut::forward(ForwardContext& c) const {
  c.backend->shortcut_forward(
      {.dtype = c.x[0].dtype(), .shape = shape(c.x[0].spec), .x = c.x[0].data, .y = c.y[0].data});
}

void ZeroPadShortcut::backward(BackwardContext& c) const {
  c.backend->shortcut_backward({.dtype = c.dy[0].dtype(),
                                .shape = shape(c.x[0].spec),
                                .dy = c.dy[0].data,
                                .dx = c.dx[0].data,
                                .mode = c.modes[0]});
}

}  // namespace gradflow
