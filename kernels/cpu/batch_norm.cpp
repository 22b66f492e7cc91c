// Batch normalization over the last dimension, forward and backward, with what may follow it in the same
// pass: an activation, or a residual addition and an activation.
//
// Two passes each way over lines of 64 lanes (columns.h): sums in f64, then the result. The arithmetic
// between is that of the separate operations, rounding by rounding (in bf16 also the one with which each of
// them stores its result), so a fused pass has their bits. Statistics and parameters of a bf16 call are f32.
#include <bit>
#include <cmath>

#include "columns.h"
#include "functions.h"
#include "gradflow/kernels/error.h"
#include "measured_lines.h"
#include "storage.h"
#include "vector_math.h"

namespace gradflow::kernels::cpu {
namespace {

// Per-lane numbers of one block, repeated where a line holds several rows.
template <class T, class F>
void spread(const Columns& m, std::size_t block, T* lanes, const F& of_channel) {
  const std::size_t first = m.first_channel(block), width = m.width(block);
  for (std::size_t l = 0; l < width; ++l)
    lanes[l] = static_cast<T>(of_channel(m.repeat > 1 ? l % m.channels : first + l));
}

template <class T>
T at(const void* p, std::size_t i, T otherwise) {
  return p ? static_cast<const T*>(p)[i] : otherwise;
}

// Adds sum d to s.a and sum d * e to s.b for the 32 lanes from `from` of full lines; pack(offset, d, e)
// loads.
template <class Pack>
void sum_half(const ColumnPiece& p, std::size_t end, std::size_t from, LanePair& s, const Pack& pack) {
  constexpr std::size_t kPacks = 4;
  DoublePack a[kPacks], b[kPacks];
#pragma GCC unroll 4
  for (std::size_t j = 0; j < kPacks; ++j) a[j] = b[j] = DoublePack{};
  for (std::size_t v = p.begin; v < end; ++v) {
    const std::size_t offset = v * p.stride + p.first + from;
#pragma GCC unroll 4
    for (std::size_t j = 0; j < kPacks; ++j) {
      DoublePack d, e;
      pack(offset + j * kPackLanes, from + j * kPackLanes, d, e);
      a[j] += d;
      b[j] += d * e;
    }
  }
  std::memcpy(s.a + from, a, sizeof a);
  std::memcpy(s.b + from, b, sizeof b);
}

template <class Pack, class Single>
void sum_piece(const ColumnPiece& p, LanePair& s, const Pack& pack, const Single& single) {
  s = {};
  ColumnPiece rest = p;
  if (p.width == kLanes) {
    const std::size_t whole = p.last_width == kLanes ? p.end : p.end - 1;
    sum_half(p, whole, 0, s, pack);
    sum_half(p, whole, kLanes / 2, s, pack);
    rest.begin = whole;
  }
  if (rest.begin == rest.end) return;
  for_each_line(rest, [&](std::size_t offset, auto lanes) {
    for (std::size_t l = 0; l < lanes; ++l) {
      double d, e;
      single(offset + l, l, d, e);
      s.a[l] += d;
      s.b[l] += d * e;
    }
  });
}

// The same for bf16 numbers, whose 8 bits leave f32 16 to spare: 16 lines at a time are summed in f32, and these
// sums in f64. term(element, lane, d, e).
template <class Term>
void sum_runs(const ColumnPiece& p, LanePair& s, const Term& term) {
  constexpr std::size_t kRun = 16;
  s = {};
  for (std::size_t v = p.begin; v < p.end; v += kRun) {
    ColumnPiece run = p;
    run.begin = v, run.end = std::min(p.end, v + kRun);
    if (run.end != p.end) run.last_width = p.width;
    alignas(64) float a[kLanes] = {}, b[kLanes] = {};
    for_each_line(run, [&](std::size_t offset, auto lanes) {
      for (std::size_t l = 0; l < lanes; ++l) {
        float d, e;
        term(offset + l, l, d, e);
        a[l] += d;
        b[l] += d * e;
      }
    });
    for (std::size_t l = 0; l < kLanes; ++l) s.a[l] += static_cast<double>(a[l]);
    for (std::size_t l = 0; l < kLanes; ++l) s.b[l] += static_cast<double>(b[l]);
  }
}

// Whether what the op and its gradient make of stored numbers can be stored without rounding.
template <class Op>
inline constexpr bool kExact = Op::id == PointwiseId::identity || Op::id == PointwiseId::relu;

// Everything of one call that lies in scratch memory.
template <class T>
struct Room {
  LanePair* partials;
  double *mean, *variance, *sum_a, *sum_b;  // [channels]
  double* center;                           // lanes of all blocks
  T* lanes[5];                              // lanes of all blocks
  double* statistics;                       // of kSinks sinks, where they are asked for
  static constexpr std::size_t kSinks = 4;

  Room(const Context& context, const Columns& m, bool measures) {
    const std::size_t lines = m.blocks * kLanes;
    double* r = context.room(m.tasks() * (sizeof(LanePair) / sizeof(double)) + 4 * m.channels + 6 * lines +
                             (measures ? PieceStats::room(m, kSinks) : 0));
    partials = reinterpret_cast<LanePair*>(r);
    r += m.tasks() * (sizeof(LanePair) / sizeof(double));
    for (double** p : {&mean, &variance, &sum_a, &sum_b}) {
      *p = r;
      r += m.channels;
    }
    center = r;
    for (T*& l : lanes) l = reinterpret_cast<T*>(r += lines);
    statistics = r + lines;
  }
};

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

// Stores the first numbers of a line; d and y do not overlap. kIsStored: they are rounded already.
template <bool kIsStored, class S>
void store_line(const Arithmetic<S>* d, S* y, std::size_t n) {
  if constexpr (!std::is_same_v<S, Bf16>)
    std::memcpy(y, d, n * sizeof(S));
  else if constexpr (kIsStored)
    for (std::size_t l = 0; l < n; ++l)
      y[l] = {static_cast<std::uint16_t>(std::bit_cast<std::uint32_t>(d[l]) >> 16)};
  else
    for (std::size_t l = 0; l < n; ++l) y[l] = to_bf16(d[l]);
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

void require_output_op(PointwiseId op) {
  if (info_of(op).saves != Saves::y)
    throw InternalError("batch norm cannot end in '" + std::string(info_of(op).name) +
                        "', which saves its input");
}

}  // namespace

void batch_norm_forward(const Context& context, const BatchNormForward& a) {
  require_output_op(a.op);
  if (a.rows == 0 || a.channels == 0) return;
  visit_stored(a.dtype, [&]<class S>() { forward<S>(context, a); });
}

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
