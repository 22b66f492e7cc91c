// Pointwise layers and the residual addition: one loop a tile, statistics before and after it.
#include "exponents.h"
#include "functions.h"
#include "gradflow/kernels/error.h"
#include "pointwise_loops.h"
#include "stats_lanes.h"
#include "storage.h"

namespace gradflow::kernels::cpu {
namespace {

// In place or not, as pointwise_loops.h says.
template <class T>
void scale_loop(T factor, const T* dy, T* dx, std::size_t n, GradMode mode) {
  if (mode == GradMode::accumulate) {
#pragma GCC ivdep
    for (std::size_t i = 0; i < n; ++i) dx[i] += factor * dy[i];
  } else if (mode == GradMode::overwrite) {
#pragma GCC ivdep
    for (std::size_t i = 0; i < n; ++i) dx[i] = factor * dy[i];
  }
}

template <class T>
void add_loop(T skip_factor, const T* skip, T branch_factor, const T* branch, T* y, std::size_t n) {
#pragma GCC ivdep
  for (std::size_t i = 0; i < n; ++i) y[i] = skip_factor * skip[i] + branch_factor * branch[i];
}

template <class T>
const T* in(const void* p) {
  return static_cast<const T*>(p);
}
template <class T>
T* out(void* p) {
  return static_cast<T*>(p);
}

void collect(const Context& context, std::size_t n, std::size_t sink, Stats* to) {
  if (!to) return;
  for (std::size_t i = 0; i < Chunks(n).count; ++i) add(*to, context.partial(i, sink));
}

// Measures n <= kBlock numbers, a multiple of kRow, before and after the op, which it then runs. Before and
// after are measured at once, in registers, while x is still there. Where ReLU puts zeros, zeros are counted
// on the way.
//
// Only ops of a few instructions gain by it, because they wait for memory. Where an op computes an exp, its
// constants and the sums do not fit into the registers together, and measuring the tile afterwards is faster.
template <class Op>
constexpr bool kMakesZeros = Op::id == PointwiseId::relu;
template <class Op>
constexpr bool kCheapForward = Op::flops <= 2;
template <class Op>
constexpr bool kCheapBackward = Op::saves == Saves::y;  // a few multiplications; softplus has one exp

// How many of [begin, end) go into the next block.
std::size_t block_length(std::size_t begin, std::size_t end) {
  return std::min(kBlock, (end - begin) / kRow * kRow);
}

template <class Op>
void forward_block(const float* x, float* y, std::size_t n, StatsLanes<float>& x_lanes,
                   StatsLanes<float>& y_lanes) {
  BlockRegisters<kAccumulators> x_block;
  BlockRegisters<kAccumulators, kMakesZeros<Op> ? Small::zeros_only : Small::noticed> y_block;
  for_each_vector(
      n,
      [&](std::size_t at, int j) __attribute__((always_inline)) {
        const Floats in = load(x + at);
        const Floats out = map(
            in, [](float v) __attribute__((always_inline)) { return Op::template forward<Math<float>>(v); });
        x_block.add(in, j);
        y_block.add(out, j);
      },
      x_block, y_block);
  const BlockSums x_sums = x_block.sums();
  BlockSums y_sums = y_block.sums();
  if constexpr (kMakesZeros<Op>) y_sums.min = x_sums.min;  // what is not zero is x
  x_lanes.add_block(x_sums, x, n);
  forward_loop<Op>(x, y, n);
  y_lanes.add_block(y_sums, y, n);
}

template <class Op, bool accumulate>
void backward_block(const float* saved, const float* dy, float* dx, std::size_t n,
                    StatsLanes<float>& dy_lanes, StatsLanes<float>& dx_lanes) {
  constexpr bool selects = kMakesZeros<Op> && !accumulate;  // what is not zero is dy
  BlockRegisters<kAccumulators> dy_block;
  BlockRegisters<kAccumulators, selects           ? Small::zeros_only
                                : kMakesZeros<Op> ? Small::counted
                                                  : Small::noticed>
      dx_block;
  for_each_vector(
      n,
      [&](std::size_t at, int j) __attribute__((always_inline)) {
        const Floats in = load(dy + at);
        Floats out = map(
            load(saved + at), in, [](float s, float g) __attribute__((always_inline)) {
              return Op::template backward<Math<float>>(s, g);
            });
        if constexpr (accumulate) out = load(dx + at) + out;
        dy_block.add(in, j);
        dx_block.add(out, j);
      },
      dy_block, dx_block);
  const BlockSums dy_sums = dy_block.sums();
  BlockSums dx_sums = dx_block.sums();
  if constexpr (selects) dx_sums.min = dy_sums.min;
  dy_lanes.add_block(dy_sums, dy, n);
  backward_loop<Op>(saved, dy, dx, n, accumulate);
  dx_lanes.add_block(dx_sums, dx, n);
}

template <class Op, class S>
void forward(const Context& context, const PointwiseForward& a) {
  using T = Arithmetic<S>;
  const S* x = in<S>(a.x);
  S* y = out<S>(a.y);
  const bool cheap = kCheapForward<Op> && !a.x_stats && !a.y_stats && !a.x_exponents && !a.y_exponents;
  for_each_chunk(context, a.n, cheap ? kSerialCheap : kSerialExpensive,
                 [&](std::size_t chunk, std::size_t begin, std::size_t end) {
                   StatsLanes<T> x_lanes, y_lanes;
                   ExponentCounts x_exponents(a.x_exponents), y_exponents(a.y_exponents);
                   std::size_t rest = begin;
                   if constexpr (std::is_same_v<S, float> && kCheapForward<Op>)
                     if (a.x_stats && a.y_stats)
                       for (std::size_t n; (n = block_length(rest, end)) > 0; rest += n) {
                         x_exponents.add(x + rest, n);  // y may replace it
                         forward_block<Op>(x + rest, y + rest, n, x_lanes, y_lanes);
                         y_lanes.add_saturated(count_saturated<Op>(y + rest, n));
                         y_exponents.add(y + rest, n);
                       }
                   for_each_tile(rest, end, [&](std::size_t from, std::size_t to) {
                     const std::size_t n = to - from;
                     x_exponents.add(x + from, n);
                     TileIn<S> x_tile;
                     TileOut<S> y_tile;
                     const T* xs = x_tile.read(x + from, n);
                     T* ys = y_tile.open(y + from, n);
                     if (a.x_stats) x_lanes.add(xs, n);
                     forward_loop<Op>(xs, ys, n);
                     y_tile.close(y + from, n);
                     if (a.y_stats) {
                       y_lanes.add(ys, n);
                       y_lanes.add_saturated(count_saturated<Op>(ys, n));
                     }
                     y_exponents.add(y + from, n);
                   });
                   x_exponents.flush();
                   y_exponents.flush();
                   if (a.x_stats) static_cast<Stats&>(context.partial(chunk, 0)) = x_lanes.result();
                   if (a.y_stats) static_cast<Stats&>(context.partial(chunk, 1)) = y_lanes.result();
                 });
  collect(context, a.n, 0, a.x_stats);
  collect(context, a.n, 1, a.y_stats);
}

template <class Op, class S>
void backward(const Context& context, const PointwiseBackward& a) {
  using T = Arithmetic<S>;
  const S* saved = in<S>(a.saved);
  const S* dy = in<S>(a.dy);
  S* dx = out<S>(a.dx);
  const bool wanted = a.mode != GradMode::none;
  Stats* dx_stats = wanted ? a.dx_stats : nullptr;
  const bool cheap = !a.dy_stats && !dx_stats && !a.dy_exponents && !a.dx_exponents;
  for_each_chunk(
      context, a.n, cheap ? kSerialCheap : kSerialExpensive,
      [&](std::size_t chunk, std::size_t begin, std::size_t end) {
        StatsLanes<T> dy_lanes, dx_lanes;
        ExponentCounts dy_exponents(a.dy_exponents), dx_exponents(wanted ? a.dx_exponents : nullptr);
        std::size_t rest = begin;
        if constexpr (std::is_same_v<S, float> && kCheapBackward<Op>)
          if (a.dy_stats && dx_stats)
            for (std::size_t n; (n = block_length(rest, end)) > 0; rest += n) {
              dy_exponents.add(dy + rest, n);  // dx may replace it
              if (a.mode == GradMode::accumulate)
                backward_block<Op, true>(saved + rest, dy + rest, dx + rest, n, dy_lanes, dx_lanes);
              else
                backward_block<Op, false>(saved + rest, dy + rest, dx + rest, n, dy_lanes, dx_lanes);
              dx_exponents.add(dx + rest, n);
            }
        for_each_tile(rest, end, [&](std::size_t from, std::size_t to) {
          const std::size_t n = to - from;
          dy_exponents.add(dy + from, n);
          TileIn<S> saved_tile, dy_tile;
          TileOut<S> dx_tile;
          const T* dys = dy_tile.read(dy + from, n);
          if (a.dy_stats) dy_lanes.add(dys, n);
          if (!wanted) return;
          T* dxs = dx_tile.open(dx + from, n, a.mode);
          backward_loop<Op>(saved_tile.read(saved + from, n), dys, dxs, n, a.mode == GradMode::accumulate);
          dx_tile.close(dx + from, n);
          if (dx_stats) dx_lanes.add(dxs, n);
          dx_exponents.add(dx + from, n);
        });
        dy_exponents.flush();
        dx_exponents.flush();
        if (a.dy_stats) static_cast<Stats&>(context.partial(chunk, 0)) = dy_lanes.result();
        if (dx_stats) static_cast<Stats&>(context.partial(chunk, 1)) = dx_lanes.result();
      });
  collect(context, a.n, 0, a.dy_stats);
  collect(context, a.n, 1, dx_stats);
}

// Calls f.template operator()<Op>() for an op that a residual addition may have behind it.
template <class F>
void visit_behind_addition(PointwiseId op, const F& f) {
  ops::All::visit(op, [&]<class Op>() {
    if constexpr (Op::saves == Saves::y)
      f.template operator()<Op>();
    else
      throw InternalError("a residual addition cannot have " + std::string(Op::name) +
                          " behind it: the op does not save its output");
  });
}

template <class Op, class S>
void residual_forward(const Context& context, const ResidualForward& a) {
  if (a.n == 0) return;
  using T = Arithmetic<S>;
  const S* skip = in<S>(a.skip);
  const S* branch = in<S>(a.branch);
  S* y = out<S>(a.y);
  const T skip_factor = static_cast<T>(a.gates->forward_skip);
  const T branch_factor = static_cast<T>(a.gates->forward_branch * a.scale);
  const bool measures = a.y_stats || a.y_exponents || a.branch_stats || a.branch_exponents || a.sum_stats || a.sum_exponents;
  for_each_chunk(context, a.n, measures ? kSerialExpensive : kSerialCheap,
                 [&](std::size_t chunk, std::size_t begin, std::size_t end) {
                   StatsLanes<T> lanes, branch_lanes, sum_lanes;
                   ExponentCounts exponents(a.y_exponents), branch_exponents(a.branch_exponents), sum_exponents(a.sum_exponents);
                   for_each_tile(begin, end, [&](std::size_t from, std::size_t to) {
                     const std::size_t n = to - from;
                     TileIn<S> skip_tile, branch_tile;
                     TileOut<S> y_tile;
                     const T* skips = skip_tile.read(skip + from, n);
                     const T* branches = branch_tile.read(branch + from, n);
                     branch_exponents.add(branches, n);  // y may replace it
                     if (a.branch_stats) branch_lanes.add(branches, n);
                     T* ys = y_tile.open(y + from, n);
                     add_loop(skip_factor, skips, branch_factor, branches, ys, n);
                     if (a.sum_stats || a.sum_exponents) {
                       T sums[kTile];
                       for (std::size_t i = 0; i < n; ++i) sums[i] = as_stored<S>(ys[i]);
                       if (a.sum_stats) sum_lanes.add(sums, n);
                       sum_exponents.add(sums, n);
                     }
                     if constexpr (Op::id != PointwiseId::identity) forward_loop<Op>(ys, ys, n);
                     y_tile.close(y + from, n);
                     exponents.add(y + from, n);
                     if (!a.y_stats) return;
                     lanes.add(ys, n);
                     lanes.add_saturated(count_saturated<Op>(ys, n));
                   });
                   for (const ExponentCounts* counts : {&exponents, &branch_exponents, &sum_exponents}) counts->flush();
                   if (a.y_stats) static_cast<Stats&>(context.partial(chunk, 0)) = lanes.result();
                   if (a.branch_stats) static_cast<Stats&>(context.partial(chunk, 1)) = branch_lanes.result();
                   if (a.sum_stats) static_cast<Stats&>(context.partial(chunk, 2)) = sum_lanes.result();
                 });
  collect(context, a.n, 0, a.y_stats);
  collect(context, a.n, 1, a.branch_stats);
  collect(context, a.n, 2, a.sum_stats);
}

// seen(numbers) looks at what was stored.
template <class S, class F>
void scale_tile(Arithmetic<S> factor, const Arithmetic<S>* dy, S* dx, std::size_t n, GradMode mode, const F& seen) {
  if (mode == GradMode::none) return;
  TileOut<S> tile;
  Arithmetic<S>* dxs = tile.open(dx, n, mode);
  scale_loop(factor, dy, dxs, n, mode);
  tile.close(dx, n);
  seen(dxs);
}

// The one of dskip and dbranch that aliases dy must be written last, when dy has been read for the other.
template <class Op, class S>
void residual_backward(const Context& context, const ResidualBackward& a) {
  if (a.n == 0) return;
  using T = Arithmetic<S>;
  const S* dy = in<S>(a.dy);
  S* dskip = out<S>(a.dskip);
  S* dbranch = out<S>(a.dbranch);
  const T skip_factor = static_cast<T>(a.gates->backward_skip);
  const T branch_factor = static_cast<T>(a.gates->backward_branch * a.scale);
  const bool skip_last = dskip == dy;
  constexpr bool kActivation = Op::id != PointwiseId::identity;
  if (kActivation && !a.y) throw InternalError("residual_backward: the output is missing");
  Stats* dbranch_stats = a.branch_mode == GradMode::none ? nullptr : a.dbranch_stats;
  std::uint64_t* dbranch_bins = a.branch_mode == GradMode::none ? nullptr : a.dbranch_exponents;
  const bool measures = a.dy_stats || a.dy_exponents || a.dsum_stats || a.dsum_exponents || dbranch_stats || dbranch_bins;
  for_each_chunk(context, a.n, measures ? kSerialExpensive : kSerialCheap,
                 [&](std::size_t chunk, std::size_t begin, std::size_t end) {
                   StatsLanes<T> lanes, sum_lanes, branch_lanes;
                   ExponentCounts exponents(a.dy_exponents), sum_exponents(a.dsum_exponents), branch_exponents(dbranch_bins);
                   const auto look_away = [](const T*) {};
                   for_each_tile(begin, end, [&](std::size_t from, std::size_t to) {
                     const std::size_t n = to - from;
                     TileIn<S> dy_tile;
                     const T* dys = dy_tile.read(dy + from, n);
                     exponents.add(dy + from, n);
                     if (a.dy_stats) lanes.add(dys, n);
                     T dz[kActivation ? kTile : 1];
                     if constexpr (kActivation) {
                       TileIn<S> y_tile;
                       backward_loop<Op>(y_tile.read(in<S>(a.y) + from, n), dys, dz, n, false);
                       dys = dz;
                     }
                     if (a.dsum_stats || a.dsum_exponents) {
                       T sums[kTile];
                       for (std::size_t i = 0; i < n; ++i) sums[i] = as_stored<S>(dys[i]);
                       if (a.dsum_stats) sum_lanes.add(sums, n);
                       sum_exponents.add(sums, n);
                     }
                     if (!skip_last) scale_tile(skip_factor, dys, dskip + from, n, a.skip_mode, look_away);
                     scale_tile(branch_factor, dys, dbranch + from, n, a.branch_mode, [&](const T* stored) {
                       if (dbranch_stats) branch_lanes.add(stored, n);
                       branch_exponents.add(stored, n);
                     });
                     if (skip_last) scale_tile(skip_factor, dys, dskip + from, n, a.skip_mode, look_away);
                   });
                   for (const ExponentCounts* counts : {&exponents, &sum_exponents, &branch_exponents}) counts->flush();
                   if (a.dy_stats) static_cast<Stats&>(context.partial(chunk, 0)) = lanes.result();
                   if (a.dsum_stats) static_cast<Stats&>(context.partial(chunk, 1)) = sum_lanes.result();
                   if (dbranch_stats) static_cast<Stats&>(context.partial(chunk, 2)) = branch_lanes.result();
                 });
  collect(context, a.n, 0, a.dy_stats);
  collect(context, a.n, 1, a.dsum_stats);
  collect(context, a.n, 2, dbranch_stats);
}

}  // namespace

void pointwise_forward(const Context& context, const PointwiseForward& a) {
  visit_stored(a.dtype,
               [&]<class S>() { ops::All::visit(a.op, [&]<class Op>() { forward<Op, S>(context, a); }); });
}

void pointwise_backward(const Context& context, const PointwiseBackward& a) {
  visit_stored(a.dtype,
               [&]<class S>() { ops::All::visit(a.op, [&]<class Op>() { backward<Op, S>(context, a); }); });
}

void residual_forward(const Context& context, const ResidualForward& a) {
  visit_stored(a.dtype, [&]<class S>() {
    visit_behind_addition(a.op, [&]<class Op>() { residual_forward<Op, S>(context, a); });
  });
}

void residual_backward(const Context& context, const ResidualBackward& a) {
  visit_stored(a.dtype, [&]<class S>() {
    visit_behind_addition(a.op, [&]<class Op>() { residual_backward<Op, S>(context, a); });
  });
}

}  // namespace gradflow::kernels::cpu
