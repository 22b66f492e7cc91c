// Batch normalization over the last dimension, backward, from behind the activation and the addition that its
// forward pass took in.
#include "batch_norm_lines.h"

namespace gradflow::kernels::cpu {
namespace {

// With xhat = (x - mean) * inv_std, N rows and g the gradient at the normalized output:
//   dshift = sum g,  dscale = sum g * xhat,  dx = scale * inv_std * (g - dshift / N - xhat * dscale / N).
template <class Op, bool kSkip, class S>
void backward(const Context& context, const BatchNormBackward& a) {
  using T = Arithmetic<S>;
  const Columns m(a.rows, a.channels);
  Stats* dx_stats = a.dx_mode == GradMode::none ? nullptr : a.dx_stats;
  std::uint64_t* dx_exponents = a.dx_mode == GradMode::none ? nullptr : a.dx_exponents;
  const bool measures = a.dy_stats || a.dsum_stats || a.dn_stats || dx_stats || a.dy_exponents || a.dsum_exponents ||
                        a.dn_exponents || dx_exponents;
  const Room<T> room(context, m, measures);
  const S *x = static_cast<const S*>(a.x), *dy = static_cast<const S*>(a.dy);
  const S* y = static_cast<const S*>(a.y);
  const T *mean = static_cast<const T*>(a.mean), *inv_std = static_cast<const T*>(a.inv_std);
  const T skip_factor = kSkip ? static_cast<T>(a.gates->backward_skip) : T(1);
  const T branch_factor = kSkip ? static_cast<T>(a.gates->backward_branch * a.branch_scale) : T(1);
  constexpr bool kActs = Op::id != PointwiseId::identity;
  const auto through_op = [=](std::size_t i) -> T {
    if constexpr (!kActs) return widen(dy[i]);
    const T d = Op::template backward<Math<T>>(widen(y[i]), widen(dy[i]));
    return kExact<Op> ? d : as_stored<S>(d);
  };
  const auto to_branch = [=](T d) -> T { return kSkip ? as_stored<S>(branch_factor * d) : d; };

  for (std::size_t j = 0; j < m.blocks; ++j) {
    spread(m, j, room.center + j * kLanes, [&](std::size_t c) { return static_cast<double>(mean[c]); });
    spread(m, j, room.lanes[4] + j * kLanes, [&](std::size_t c) { return mean[c]; });
  }
  for_each_piece(context, m, [&](std::size_t chunk, std::size_t block) {
    LanePair& sums = room.partials[block * m.chunks + chunk];
    if constexpr (std::is_same_v<S, Bf16>) {
      const float* center = room.lanes[4] + block * kLanes;
      sum_runs(piece_of(m, chunk, block), sums, [=](std::size_t i, std::size_t lane, float& d, float& e) {
        d = to_branch(through_op(i));
        e = widen(x[i]) - center[lane];
      });
    } else {
      const double* center = room.center + block * kLanes;
      sum_piece(
          piece_of(m, chunk, block), sums,
          [=](std::size_t i, std::size_t lane, DoublePack& d, DoublePack& e) {
            alignas(64) T g[kPackLanes];
#pragma GCC ivdep
            for (std::size_t k = 0; k < kPackLanes; ++k) g[k] = to_branch(through_op(i + k));
            d = load_wide(g);
            e = load_wide(x + i) - load_wide(center + lane);
          },
          [=](std::size_t i, std::size_t lane, double& d, double& e) {
            d = static_cast<double>(to_branch(through_op(i)));
            e = static_cast<double>(x[i]) - center[lane];
          });
    }
  });
  for (std::size_t j = 0; j < m.blocks; ++j) fold(m, room.partials, j, room.sum_a, room.sum_b);

  const double rows = static_cast<double>(m.rows);
  for (std::size_t c = 0; c < m.channels; ++c) {
    room.sum_b[c] *= static_cast<double>(inv_std[c]);
    const auto store = [&](void* to, double value) {
      if (!to || a.parameter_mode == GradMode::none) return;
      T& g = static_cast<T*>(to)[c];
      g = static_cast<T>(a.parameter_mode == GradMode::accumulate ? static_cast<double>(g) + value : value);
    };
    store(a.dshift, room.sum_a[c]);
    store(a.dscale, room.sum_b[c]);
  }
  const GradMode skip_mode = kSkip ? a.skip_mode : GradMode::none;
  if (a.dx_mode == GradMode::none && skip_mode == GradMode::none && !measures) return;
  for (std::size_t j = 0; j < m.blocks; ++j) {
    const std::size_t to = j * kLanes;
    const auto deviation = [&](std::size_t c) { return static_cast<double>(inv_std[c]); };
    spread(m, j, room.lanes[0] + to, [&](std::size_t c) { return mean[c]; });
    spread(m, j, room.lanes[1] + to,
           [&](std::size_t c) { return static_cast<double>(at<T>(a.scale, c, T(1))) * deviation(c); });
    spread(m, j, room.lanes[2] + to, [&](std::size_t c) { return room.sum_a[c] / rows; });
    spread(m, j, room.lanes[3] + to, [&](std::size_t c) { return deviation(c) * (room.sum_b[c] / rows); });
  }
  S* dx = static_cast<S*>(a.dx);
  S* dskip = static_cast<S*>(a.dskip);
  const bool accumulate = a.dx_mode == GradMode::accumulate;
  const PieceStats statistics(room.statistics, m);
  for_each_piece(context, m, [&](std::size_t chunk, std::size_t block) {
    LineSink<T> dy_sink(a.dy_stats, a.dy_exponents), dsum_sink(a.dsum_stats, a.dsum_exponents),
        dn_sink(a.dn_stats, a.dn_exponents), dx_sink(dx_stats, dx_exponents);
    const T *center = room.lanes[0] + block * kLanes, *scale = room.lanes[1] + block * kLanes,
            *mean_g = room.lanes[2] + block * kLanes, *slope = room.lanes[3] + block * kLanes;
    for_each_line(piece_of(m, chunk, block), [&](std::size_t offset, auto lanes) {
      const S* xv = x + offset;
      S* dxv = dx ? dx + offset : nullptr;
      S* dskipv = dskip ? dskip + offset : nullptr;
      T d[kLanes];
      for (std::size_t l = 0; l < lanes; ++l) d[l] = through_op(offset + l);
      dy_sink.add_each(lanes, [=](std::size_t l) { return widen(dy[offset + l]); });
      dsum_sink.add_each(lanes, [&d](std::size_t l) { return d[l]; });
      dn_sink.add_each(lanes, [&](std::size_t l) { return to_branch(d[l]); });
      if (kSkip && skip_mode == GradMode::overwrite) {
        for (std::size_t l = 0; l < lanes; ++l) dskipv[l] = narrow<S>(skip_factor * d[l]);
      } else if (kSkip && skip_mode == GradMode::accumulate) {
        for (std::size_t l = 0; l < lanes; ++l) dskipv[l] = narrow<S>(widen(dskipv[l]) + skip_factor * d[l]);
      }
      if (a.dx_mode == GradMode::none) return;
      for (std::size_t l = 0; l < lanes; ++l)
        d[l] = scale[l] * ((to_branch(d[l]) - mean_g[l]) - (widen(xv[l]) - center[l]) * slope[l]);
      if (accumulate) {
        for (std::size_t l = 0; l < lanes; ++l) dxv[l] = narrow<S>(widen(dxv[l]) + d[l]);
      } else {
        store_line<false, S>(d, dxv, lanes);
      }
      dx_sink.add_each(lanes, [=](std::size_t l) { return widen(dxv[l]); });
    });
    statistics.close(chunk, block, {&dy_sink, &dsum_sink, &dn_sink, &dx_sink});
  });
  statistics.add_to({a.dy_stats, a.dsum_stats, a.dn_stats, dx_stats});
}

}  // namespace

void batch_norm_backward(const Context& context, const BatchNormBackward& a) {
  require_output_op(a.op);
  if (a.rows == 0 || a.channels == 0) return;
  visit_stored(a.dtype, [&]<class S>() {
    ops::All::visit(a.op, [&]<class Op>() {
      if constexpr (Op::saves == Saves::y) {
        if (a.has_skip)
          backward<Op, true, S>(context, a);
        else
          backward<Op, false, S>(context, a);
      }
    });
  });
}

}  // namespace gradflow::kernels::cpu
