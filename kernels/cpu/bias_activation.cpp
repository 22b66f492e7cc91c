// Bias and activation in one pass, and their backward together with the bias gradient.
//
// Work is cut as a column sum's, so that the bias gradient has the bits of a column sum of dx. Statistics ride along.
#include "columns.h"
#include "functions.h"
#include "gradflow/kernels/error.h"
#include "measured_lines.h"
#include "pointwise_loops.h"
#include "storage.h"

namespace gradflow::kernels::cpu {
namespace {

template <class T>
void add_bias(const T* x, const T* bias, T* z, std::size_t n) {
#pragma GCC ivdep
  for (std::size_t c = 0; c < n; ++c) z[c] = x[c] + bias[c];
}

// The bias of each lane of a piece.
template <class T>
struct BiasLanes {
  alignas(64) T of[kLanes];

  BiasLanes(const void* bias, const ColumnPiece& p, std::size_t columns) {
    for (std::size_t l = 0; l < p.width; ++l) of[l] = static_cast<const T*>(bias)[(p.first + l) % columns];
  }
};

void refuse_sinks(PointwiseId op, const char* call) {
  if (info_of(op).saves == Saves::y) return;
  throw InternalError(std::string(call) + ": statistics of '" + std::string(info_of(op).name) +
                      "', an op that does not save its output");
}

template <class Op, class S>
void forward(const Context& context, const BiasActivationForward& a) {
  using T = Arithmetic<S>;
  const Columns m(a.rows, a.columns);
  const bool measures = a.z_stats || a.y_stats || a.z_exponents || a.y_exponents;
  if (measures) refuse_sinks(Op::id, "bias_activation_forward");
  const PieceStats statistics(context.room(measures ? PieceStats::room(m, 2) : 0), m);
  for_each_piece(context, m, [&](std::size_t chunk, std::size_t block) {
    const ColumnPiece piece = piece_of(m, chunk, block);
    const BiasLanes<T> bias(a.bias, piece, a.columns);
    TileIn<S> x_tile;
    TileOut<S> y_tile;
    LineSink<T> z_sink(a.z_stats, a.z_exponents), y_sink(a.y_stats, a.y_exponents, Op::id);
    for_each_line(piece, [&](std::size_t at, auto lanes) {
      S* y = static_cast<S*>(a.y) + at;
      const T* xs = x_tile.read(static_cast<const S*>(a.x) + at, lanes);
      T* ys = y_tile.open(y, lanes);
      T z[kLanes];
      add_bias(xs, bias.of, z, lanes);
      forward_loop<Op>(z, ys, lanes);
      y_tile.close(y, lanes);
      y_sink.add(ys, lanes);
      z_sink.add_each(lanes, [&z](std::size_t l) { return as_stored<S>(z[l]); });
    });
    statistics.close(chunk, block, {&z_sink, &y_sink});
  });
  statistics.add_to({a.z_stats, a.y_stats});
}

template <class Op, class S>
void backward(const Context& context, const BiasActivationBackward& a) {
  using T = Arithmetic<S>;
  constexpr bool kFromInput = Op::saves == Saves::x;
  if (kFromInput && !a.bias) throw InternalError("bias_activation_backward: this op needs the bias again");
  const Columns m(a.rows, a.columns);
  constexpr std::size_t kPair = sizeof(LanePair) / sizeof(double);
  const bool measures = a.dy_stats || a.dx_stats || a.dy_exponents || a.dx_exponents;
  if (measures) refuse_sinks(Op::id, "bias_activation_backward");
  double* room = context.room(m.tasks() * kPair + a.columns + (measures ? PieceStats::room(m, 2) : 0));
  auto* partials = reinterpret_cast<LanePair*>(room);
  double* sums = room + m.tasks() * kPair;
  const PieceStats statistics(sums + a.columns, m);
  for_each_piece(context, m, [&](std::size_t chunk, std::size_t block) {
    const ColumnPiece piece = piece_of(m, chunk, block);
    const T none[kLanes] = {};
    const BiasLanes<T> bias(kFromInput ? a.bias : none, piece, kFromInput ? a.columns : kLanes);
    LanePair s;
    TileIn<S> saved_tile, dy_tile;
    TileOut<S> dx_tile;
    LineSink<T> dy_sink(a.dy_stats, a.dy_exponents), dx_sink(a.dx_stats, a.dx_exponents);
    for_each_line(piece, [&](std::size_t at, auto lanes) {
      S* dx = static_cast<S*>(a.dx) + at;
      const T* saved = saved_tile.read(static_cast<const S*>(a.saved) + at, lanes);
      T z[kLanes];
      if constexpr (kFromInput) {
        add_bias(saved, bias.of, z, lanes);
        saved = z;
      }
      const T* dys = dy_tile.read(static_cast<const S*>(a.dy) + at, lanes);
      dy_sink.add(dys, lanes);  // dx may replace it
      T* dxs = dx_tile.open(dx, lanes);
      backward_loop<Op>(saved, dys, dxs, lanes, false);
      dx_tile.close(dx, lanes);
      dx_sink.add(dxs, lanes);
      for (std::size_t l = 0; l < lanes; ++l) s.a[l] += static_cast<double>(dxs[l]);
    });
    partials[block * m.chunks + chunk] = s;
    statistics.close(chunk, block, {&dy_sink, &dx_sink});
  });
  statistics.add_to({a.dy_stats, a.dx_stats});
  if (a.bias_mode == GradMode::none) return;
  for (std::size_t j = 0; j < m.blocks; ++j) fold(m, partials, j, sums, nullptr);
  T* dbias = static_cast<T*>(a.dbias);
  const bool accumulate = a.bias_mode == GradMode::accumulate;
  for (std::size_t c = 0; c < a.columns; ++c)
    dbias[c] = static_cast<T>(accumulate ? static_cast<double>(dbias[c]) + sums[c] : sums[c]);
}

}  // namespace

void bias_activation_forward(const Context& context, const BiasActivationForward& a) {
  visit_stored(a.dtype, [&]<class S>() {
    if (a.rows == 0 || a.columns == 0) return;
    ops::All::visit(a.op, [&]<class Op>() { forward<Op, S>(context, a); });
  });
}

void bias_activation_backward(const Context& context, const BiasActivationBackward& a) {
  visit_stored(a.dtype, [&]<class S>() {
    if (a.rows == 0 || a.columns == 0) return;
    ops::All::visit(a.op, [&]<class Op>() { backward<Op, S>(context, a); });
  });
}

}  // namespace gradflow::kernels::cpu
