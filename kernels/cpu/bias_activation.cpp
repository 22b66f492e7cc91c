// Bias and activation in one pass, and their backward together with the bias gradient.
//
// Work is cut into blocks of columns, as in a column sum: each block walks down all rows, so its sums are formed in
// one order whatever the thread count.
#include "functions.h"
#include "gradflow/kernels/error.h"
#include "pointwise_loops.h"
#include "storage.h"

namespace gradflow::kernels::cpu {
namespace {

constexpr std::size_t kBlock = 64;  // columns

template <class Body>
void for_each_block(const Context& context, std::size_t rows, std::size_t columns, const Body& body) {
  for_each_index(context, (columns + kBlock - 1) / kBlock, rows * columns >= kSerialExpensive,
                 [&](std::size_t i) { body(i * kBlock, std::min(kBlock, columns - i * kBlock)); });
}

template <class T>
void add_bias(const T* x, const T* bias, T* z, std::size_t n) {
#pragma GCC ivdep
  for (std::size_t c = 0; c < n; ++c) z[c] = x[c] + bias[c];
}

template <class Op, class S>
void forward(const Context& context, const BiasActivationForward& a) {
  using T = Arithmetic<S>;
  for_each_block(context, a.rows, a.columns, [&](std::size_t first, std::size_t width) {
    const T* bias = static_cast<const T*>(a.bias) + first;
    TileIn<S> x_tile;
    TileOut<S> y_tile;
    for (std::size_t r = 0; r < a.rows; ++r) {
      const std::size_t at = r * a.columns + first;
      S* y = static_cast<S*>(a.y) + at;
      const T* xs = x_tile.read(static_cast<const S*>(a.x) + at, width);
      T* ys = y_tile.open(y, width);
      T z[kBlock];
      add_bias(xs, bias, z, width);
      forward_loop<Op>(z, ys, width);
      y_tile.close(y, width);
    }
  });
}

template <class Op, class S>
void backward(const Context& context, const BiasActivationBackward& a) {
  using T = Arithmetic<S>;
  constexpr bool kFromInput = Op::saves == Saves::x;
  if (kFromInput && !a.bias) throw InternalError("bias_activation_backward: this op needs the bias again");
  for_each_block(context, a.rows, a.columns, [&](std::size_t first, std::size_t width) {
    double sum[kBlock] = {};
    TileIn<S> saved_tile, dy_tile;
    TileOut<S> dx_tile;
    for (std::size_t r = 0; r < a.rows; ++r) {
      const std::size_t at = r * a.columns + first;
      S* dx = static_cast<S*>(a.dx) + at;
      const T* saved = saved_tile.read(static_cast<const S*>(a.saved) + at, width);
      T z[kBlock];
      if constexpr (kFromInput) {
        add_bias(saved, static_cast<const T*>(a.bias) + first, z, width);
        saved = z;
      }
      T* dxs = dx_tile.open(dx, width);
      backward_loop<Op>(saved, dy_tile.read(static_cast<const S*>(a.dy) + at, width), dxs, width, false);
      dx_tile.close(dx, width);
      for (std::size_t c = 0; c < width; ++c) sum[c] += static_cast<double>(dxs[c]);
    }
    if (a.bias_mode == GradMode::none) return;
    T* dbias = static_cast<T*>(a.dbias) + first;
    const bool accumulate = a.bias_mode == GradMode::accumulate;
    for (std::size_t c = 0; c < width; ++c)
      dbias[c] = static_cast<T>(accumulate ? static_cast<double>(dbias[c]) + sum[c] : sum[c]);
  });
}

}  // namespace

void bias_activation_forward(const Context& context, const BiasActivationForward& a) {
  visit_stored(a.dtype,
               [&]<class S>() { ops::All::visit(a.op, [&]<class Op>() { forward<Op, S>(context, a); }); });
}

void bias_activation_backward(const Context& context, const BiasActivationBackward& a) {
  visit_stored(a.dtype, [&]<class S>() {
    if (a.rows == 0) return;
    ops::All::visit(a.op, [&]<class Op>() { backward<Op, S>(context, a); });
  });
}

}  // namespace gradflow::kernels::cpu
