// Batch normalization over the last dimension, forward, with what may follow it in the same pass: an activation, or
// a residual addition and an activation.
#include <cmath>

#include "batch_norm_lines.h"

namespace gradflow::kernels::cpu {
namespace {

template <class S>
void batch_moments(const Context& context, const Columns& m, const S* x, const Room<Arithmetic<S>>& room) {
  const double rows = static_cast<double>(m.rows);
  constexpr int kPasses = sizeof(S) == 8 ? 2 : 1;
  for (int pass = 0; pass < kPasses; ++pass) {
    for (std::size_t j = 0; j < m.blocks; ++j)
      if constexpr (std::is_same_v<S, Bf16>)
        spread(m, j, room.lanes[4] + j * kLanes, [&](std::size_t c) { return widen(x[c]); });
      else
        spread(m, j, room.center + j * kLanes,
               [&](std::size_t c) { return pass == 0 ? static_cast<double>(x[c]) : room.mean[c]; });
    for_each_piece(context, m, [&](std::size_t chunk, std::size_t block) {
      LanePair& sums = room.partials[block * m.chunks + chunk];
      if constexpr (std::is_same_v<S, Bf16>) {
        const float* center = room.lanes[4] + block * kLanes;
        sum_runs(piece_of(m, chunk, block), sums,
                 [=](std::size_t i, std::size_t lane, float& d, float& e) { d = e = widen(x[i]) - center[lane]; });
      } else {
        const double* center = room.center + block * kLanes;
        sum_piece(
            piece_of(m, chunk, block), sums,
            [=](std::size_t i, std::size_t lane, DoublePack& d, DoublePack& e) {
              d = e = load_wide(x + i) - load_wide(center + lane);
            },
            [=](std::size_t i, std::size_t lane, double& d, double& e) {
              d = e = static_cast<double>(x[i]) - center[lane];
            });
      }
    });
    for (std::size_t j = 0; j < m.blocks; ++j) fold(m, room.partials, j, room.sum_a, room.sum_b);
    for (std::size_t c = 0; c < m.channels; ++c) {
      const double from = pass == 0 ? static_cast<double>(widen(x[c])) : room.mean[c];
      const double shift = room.sum_a[c] / rows, square = room.sum_b[c] / rows - shift * shift;
      room.mean[c] = from + shift;
      room.variance[c] = square < 0 ? 0.0 : square;  // NaN stays
    }
  }
}

template <class Op, bool kSkip, class S, class T = Arithmetic<S>>
void apply_forward(const Context& context, const BatchNormForward& a, const Columns& m, const Room<T>& room) {
  const S* x = static_cast<const S*>(a.x);
  const S* skip = static_cast<const S*>(a.skip);
  S* y = static_cast<S*>(a.y);
  const T skip_factor = kSkip ? static_cast<T>(a.gates->forward_skip) : T(1);
  const T branch_factor = kSkip ? static_cast<T>(a.gates->forward_branch * a.branch_scale) : T(1);
  const PieceStats statistics(room.statistics, m);
  for_each_piece(context, m, [&](std::size_t chunk, std::size_t block) {
    LineSink<T> x_sink(a.x_stats, a.x_exponents), n_sink(a.n_stats, a.n_exponents), sum_sink(a.sum_stats, a.sum_exponents),
        y_sink(a.y_stats, a.y_exponents, Op::id);
    const T *high = room.lanes[0] + block * kLanes, *low = room.lanes[1] + block * kLanes,
            *factor = room.lanes[2] + block * kLanes, *shift = room.lanes[3] + block * kLanes;
    for_each_line(piece_of(m, chunk, block), [&](std::size_t offset, auto lanes) {
      const S* xv = x + offset;
      const S* sv = kSkip ? skip + offset : nullptr;
      const auto normalized = [=](std::size_t l) { return ((widen(xv[l]) - high[l]) - low[l]) * factor[l] + shift[l]; };
      const auto added = [=](std::size_t l, T n) {
        if constexpr (kSkip) n = skip_factor * widen(sv[l]) + branch_factor * as_stored<S>(n);
        return as_stored<S>(n);
      };
      T d[kLanes];  // of its own: then no pointer can overlap with it
      // Before y may replace x or the skip. Formed again, which has the same bits (-ffp-contract=off).
      x_sink.add_each(lanes, [=](std::size_t l) { return widen(xv[l]); });
      n_sink.add_each(lanes, [=](std::size_t l) { return as_stored<S>(normalized(l)); });
      sum_sink.add_each(lanes, [=](std::size_t l) { return added(l, normalized(l)); });
      for (std::size_t l = 0; l < lanes; ++l) d[l] = Op::template forward<Math<T>>(added(l, normalized(l)));
      y_sink.add_each(lanes, [&d](std::size_t l) { return as_stored<S>(d[l]); });
      store_line<kExact<Op>, S>(d, y + offset, lanes);
    });
    statistics.close(chunk, block, {&x_sink, &n_sink, &sum_sink, &y_sink});
  });
  statistics.add_to({a.x_stats, a.n_stats, a.sum_stats, a.y_stats});
}

template <class S>
void forward(const Context& context, const BatchNormForward& a) {
  using T = Arithmetic<S>;
  const Columns m(a.rows, a.channels);
  const bool measures = a.x_stats || a.n_stats || a.sum_stats || a.y_stats || a.x_exponents || a.n_exponents ||
                        a.sum_exponents || a.y_exponents;
  const Room<T> room(context, m, measures);
  T* running_mean = static_cast<T*>(a.running_mean);
  T* running_variance = static_cast<T*>(a.running_variance);
  if (a.training) {
    batch_moments(context, m, static_cast<const S*>(a.x), room);
  } else {
    for (std::size_t c = 0; c < m.channels; ++c) {
      room.mean[c] = static_cast<double>(running_mean[c]);
      room.variance[c] = static_cast<double>(running_variance[c]);
    }
  }
  double* inv_std = room.sum_a;
  for (std::size_t c = 0; c < m.channels; ++c) {
    inv_std[c] = 1.0 / std::sqrt(room.variance[c] + a.epsilon);
    if (!a.training) continue;
    if (a.mean) static_cast<T*>(a.mean)[c] = static_cast<T>(room.mean[c]);
    if (a.inv_std) static_cast<T*>(a.inv_std)[c] = static_cast<T>(inv_std[c]);
    const double rows = static_cast<double>(a.rows);
    const double unbiased = a.rows > 1 ? room.variance[c] * (rows / (rows - 1)) : room.variance[c];
    const auto blend = [&](T old, double now) {
      return static_cast<T>((1.0 - a.momentum) * static_cast<double>(old) + a.momentum * now);
    };
    if (running_mean) running_mean[c] = blend(running_mean[c], room.mean[c]);
    if (running_variance) running_variance[c] = blend(running_variance[c], unbiased);
  }
  // x - mean is formed as (x - high) - low with mean = high + low, so a mean far from 0 costs no digits.
  for (std::size_t j = 0; j < m.blocks; ++j) {
    const std::size_t to = j * kLanes;
    const auto high = [&](std::size_t c) { return static_cast<T>(room.mean[c]); };
    spread(m, j, room.lanes[0] + to, high);
    spread(m, j, room.lanes[1] + to,
           [&](std::size_t c) { return room.mean[c] - static_cast<double>(high(c)); });
    spread(m, j, room.lanes[2] + to,
           [&](std::size_t c) { return inv_std[c] * static_cast<double>(at<T>(a.scale, c, T(1))); });
    spread(m, j, room.lanes[3] + to, [&](std::size_t c) { return at<T>(a.shift, c, T(0)); });
  }
  ops::All::visit(a.op, [&]<class Op>() {
    if constexpr (Op::saves == Saves::y) {
      if (a.skip)
        apply_forward<Op, true, S>(context, a, m, room);
      else
        apply_forward<Op, false, S>(context, a, m, room);
    }
  });
}

}  // namespace

void batch_norm_forward(const Context& context, const BatchNormForward& a) {
  require_output_op(a.op);
  if (a.rows == 0 || a.channels == 0) return;
  visit_stored(a.dtype, [&]<class S>() { forward<S>(context, a); });
}

}  // namespace gradflow::kernels::cpu
