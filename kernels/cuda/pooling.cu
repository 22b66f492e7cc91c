#include <limits>

#include "gradflow/kernels/error.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/launchers.h"
#include "kernels/cuda/pooling.cuh"

namespace gradflow::kernels::cuda {
namespace {

template <class S>
const S* in(const void* p) {
  return static_cast<const S*>(p);
}
template <class S>
S* out(void* p) {
  return static_cast<S*>(p);
}
int narrow_int(std::int64_t n) { return static_cast<int>(n); }
std::size_t size(std::int64_t n) { return static_cast<std::size_t>(n); }

// Places within one image are counted in 32 bits.
void require_small_image(std::int64_t height, std::int64_t width, std::int64_t channels) {
  if (height > 0 && width > std::numeric_limits<int>::max() / (height * channels))
    throw UserError("an image of more than 2147483647 numbers cannot be pooled on CUDA");
}

PoolPlan plan_of(const PoolWindow& w) {
  require_small_image(w.height + 2 * w.pad_h, w.width + 2 * w.pad_w, w.channels);
  return {narrow_int(w.height),       narrow_int(w.width),       narrow_int(w.channels),
          narrow_int(w.out_height()), narrow_int(w.out_width()), narrow_int(w.kernel_h),
          narrow_int(w.kernel_w),     narrow_int(w.stride_h),    narrow_int(w.stride_w),
          narrow_int(w.pad_h),        narrow_int(w.pad_w)};
}
ShortcutPlan plan_of(const ShortcutShape& s) {
  require_small_image(s.height, s.width, s.outputs);
  return {narrow_int(s.height),       narrow_int(s.width),       narrow_int(s.channels),
          narrow_int(s.out_height()), narrow_int(s.out_width()), narrow_int(s.outputs),
          narrow_int(s.stride)};
}

std::size_t inputs(const PoolWindow& w) { return size(w.height * w.width * w.channels); }
std::size_t outputs(const PoolWindow& w) { return size(w.out_height() * w.out_width() * w.channels); }
double share(const PoolWindow& w) { return 1.0 / static_cast<double>(w.kernel_h * w.kernel_w); }

// Places in packs where `vector`; a thread has at least as many images as it takes at a time, if there are so
// many.
template <class S>
BlockGrid grid_of(const Queue& queue, std::int64_t batch, std::size_t places, bool vector,
                  std::size_t images = kPacksHeld<kPackOf<S>>) {
  return matrix_grid(queue, size(batch), vector ? places / kPackOf<S> : places, kBlockThreads, images);
}

template <class S, class... Pointers>
bool in_packs(std::int64_t channels, const Pointers*... pointers) {
  return channels % kPackOf<S> == 0 && all_aligned16(pointers...);
}

}  // namespace

void max_pool_forward(Queue& queue, const MaxPoolForward& a) {
  visit_storage(a.dtype, "max_pool_forward", [&]<class S>() {
    const std::size_t n = outputs(a.window);
    if (n == 0 || a.window.batch == 0) return;
    const bool vector = in_packs<S>(a.window.channels, a.x, a.y, a.winners);
    launch(queue, GRADFLOW_KERNEL_OF(S, pool_max_all), grid_of<S>(queue, a.window.batch, n, vector, 1),
           in<S>(a.x), out<S>(a.y), a.winners, plan_of(a.window), size(a.window.batch), vector);
  });
}

void max_pool_backward(Queue& queue, const MaxPoolBackward& a) {
  visit_storage(a.dtype, "max_pool_backward", [&]<class S>() {
    const std::size_t n = inputs(a.window);
    if (n == 0 || a.window.batch == 0 || a.mode == GradMode::none) return;
    const bool vector = in_packs<S>(a.window.channels, a.winners, a.dy, a.dx);
    launch(queue, GRADFLOW_KERNEL_OF(S, pool_max_gradient), grid_of<S>(queue, a.window.batch, n, vector),
           a.winners, in<S>(a.dy), out<S>(a.dx), a.mode == GradMode::accumulate, plan_of(a.window),
           size(a.window.batch), vector);
  });
}

void average_pool_forward(Queue& queue, const AveragePoolForward& a) {
  visit_storage(a.dtype, "average_pool_forward", [&]<class S>() {
    const std::size_t n = outputs(a.window);
    if (n == 0 || a.window.batch == 0) return;
    const bool vector = in_packs<S>(a.window.channels, a.x, a.y);
    launch(queue, GRADFLOW_KERNEL_OF(S, pool_average_all), grid_of<S>(queue, a.window.batch, n, vector, 1),
           in<S>(a.x), out<S>(a.y), share(a.window), plan_of(a.window), size(a.window.batch), vector);
  });
}

void average_pool_backward(Queue& queue, const AveragePoolBackward& a) {
  visit_storage(a.dtype, "average_pool_backward", [&]<class S>() {
    const std::size_t n = inputs(a.window);
    if (n == 0 || a.window.batch == 0 || a.mode == GradMode::none) return;
    const bool vector = in_packs<S>(a.window.channels, a.dy, a.dx);
    launch(queue, GRADFLOW_KERNEL_OF(S, pool_average_gradient), grid_of<S>(queue, a.window.batch, n, vector),
           in<S>(a.dy), out<S>(a.dx), a.mode == GradMode::accumulate, static_cast<float>(share(a.window)),
           plan_of(a.window), size(a.window.batch), vector);
  });
}

void shortcut_forward(Queue& queue, const ShortcutForward& a) {
  visit_storage(a.dtype, "shortcut_forward", [&]<class S>() {
    const std::size_t n = size(a.shape.out_height() * a.shape.out_width() * a.shape.outputs);
    if (n == 0 || a.shape.batch == 0) return;
    const bool vector = a.shape.outputs % kPackOf<S> == 0 && in_packs<S>(a.shape.channels, a.x, a.y);
    launch(queue, GRADFLOW_KERNEL_OF(S, shortcut_all), grid_of<S>(queue, a.shape.batch, n, vector),
           in<S>(a.x), out<S>(a.y), plan_of(a.shape), size(a.shape.batch), vector);
  });
}

void shortcut_backward(Queue& queue, const ShortcutBackward& a) {
  visit_storage(a.dtype, "shortcut_backward", [&]<class S>() {
    const std::size_t n = size(a.shape.height * a.shape.width * a.shape.channels);
    if (n == 0 || a.shape.batch == 0 || a.mode == GradMode::none) return;
    const bool vector = a.shape.outputs % kPackOf<S> == 0 && in_packs<S>(a.shape.channels, a.dy, a.dx);
    launch(queue, GRADFLOW_KERNEL_OF(S, shortcut_gradient), grid_of<S>(queue, a.shape.batch, n, vector),
           in<S>(a.dy), out<S>(a.dx), a.mode == GradMode::accumulate, plan_of(a.shape), size(a.shape.batch),
           vector);
  });
}

}  // namespace gradflow::kernels::cuda
