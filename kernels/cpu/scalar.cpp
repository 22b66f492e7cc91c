// One learned number for a whole tensor: y = scale * x + shift, and the sums that are its gradient.
#include "functions.h"
#include "storage.h"

namespace gradflow::kernels::cpu {
namespace {

constexpr std::size_t kLanes = 16;  // partial sums of a chunk: lane i adds the elements i, i + 16, ...

template <class T>
void affine_loop(const T* x, const T* scale, const T* shift, T* y, std::size_t n) {
  const T a = scale ? *scale : T(1), b = shift ? *shift : T(0);
  if (scale && shift) {
#pragma GCC ivdep
    for (std::size_t i = 0; i < n; ++i) y[i] = a * x[i] + b;
  } else if (scale) {
#pragma GCC ivdep
    for (std::size_t i = 0; i < n; ++i) y[i] = a * x[i];  // -0 stays -0: no "+ 0"
  } else {
#pragma GCC ivdep
    for (std::size_t i = 0; i < n; ++i) y[i] = x[i] + b;
  }
}

// sums[i % kLanes] += term(i); `n` begins at a lane's start, so tiles continue each other.
template <class Term>
void add_lanes(double* sums, std::size_t n, const Term& term) {
  std::size_t i = 0;
  for (; i + kLanes <= n; i += kLanes)
    for (std::size_t l = 0; l < kLanes; ++l) sums[l] += term(i + l);
  for (std::size_t l = 0; i + l < n; ++l) sums[l] += term(i + l);
}
static_assert(kTile % kLanes == 0);

double fold(const double* lanes) {
  double sum = 0;
  for (std::size_t l = 0; l < kLanes; ++l) sum += lanes[l];
  return sum;
}

template <class S>
void forward(const Context& context, const ScalarForward& a) {
  using T = Arithmetic<S>;
  for_each_chunk(context, a.n, kSerialCheap, [&](std::size_t, std::size_t begin, std::size_t end) {
    for_each_tile(begin, end, [&](std::size_t from, std::size_t to) {
      const std::size_t n = to - from;
      TileIn<S> x_tile;
      TileOut<S> y_tile;
      S* y = static_cast<S*>(a.y) + from;
      const T* xs = x_tile.read(static_cast<const S*>(a.x) + from, n);
      affine_loop(xs, static_cast<const T*>(a.scale), static_cast<const T*>(a.shift), y_tile.open(y, n), n);
      y_tile.close(y, n);
    });
  });
}

template <class S>
void backward(const Context& context, const ScalarBackward& a) {
  using T = Arithmetic<S>;
  const auto* scale = static_cast<const T*>(a.scale);
  const T factor = scale ? *scale : T(1);
  const bool accumulate = a.mode == GradMode::accumulate;
  for_each_chunk(context, a.n, kSerialCheap, [&](std::size_t chunk, std::size_t begin, std::size_t end) {
    double products[kLanes] = {}, sums[kLanes] = {};
    for_each_tile(begin, end, [&](std::size_t from, std::size_t to) {
      const std::size_t n = to - from;
      TileIn<S> x_tile, dy_tile;
      const T* dys = dy_tile.read(static_cast<const S*>(a.dy) + from, n);
      if (a.dscale) {
        const T* xs = x_tile.read(static_cast<const S*>(a.x) + from, n);
        add_lanes(products, n, [=](std::size_t i) { return static_cast<double>(xs[i]) * static_cast<double>(dys[i]); });
      }
      if (a.dshift) add_lanes(sums, n, [=](std::size_t i) { return static_cast<double>(dys[i]); });
      if (a.mode == GradMode::none) return;
      S* dx = static_cast<S*>(a.dx) + from;
      TileOut<S> dx_tile;
      T* dxs = dx_tile.open(dx, n, a.mode);
      if (accumulate) {
#pragma GCC ivdep
        for (std::size_t i = 0; i < n; ++i) dxs[i] += factor * dys[i];
      } else {
#pragma GCC ivdep
        for (std::size_t i = 0; i < n; ++i) dxs[i] = factor * dys[i];
      }
      dx_tile.close(dx, n);
    });
    context.sums[chunk * 2] = fold(products);
    context.sums[chunk * 2 + 1] = fold(sums);
  });
  const auto finish = [&](void* to, std::size_t which) {
    if (!to) return;
    T& out = *static_cast<T*>(to);
    double sum = a.parameter_mode == GradMode::accumulate ? static_cast<double>(out) : 0.0;
    for (std::size_t chunk = 0; chunk < Chunks(a.n).count; ++chunk) sum += context.sums[chunk * 2 + which];
    out = static_cast<T>(sum);
  };
  finish(a.dscale, 0);
  finish(a.dshift, 1);
}

}  // namespace

void scalar_forward(const Context& context, const ScalarForward& a) {
  visit_stored(a.dtype, [&]<class S>() { forward<S>(context, a); });
}

void scalar_backward(const Context& context, const ScalarBackward& a) {
  visit_stored(a.dtype, [&]<class S>() {
    if (a.n != 0) backward<S>(context, a);
  });
}

}  // namespace gradflow::kernels::cpu
