// Pointwise layers and the residual addition: one loop a tile, statistics before and after it.
#include "functions.h"
#include "stats_lanes.h"
#include "vector_math.h"

namespace gradflow::kernels::cpu {
namespace {

// The loops below may run in place, element by element: `ivdep` tells the compiler that no iteration reads
// what an earlier one wrote, which its own overlap test would have to deny when the pointers are equal.

template <class Op, class T>
void forward_loop(const T* x, T* y, std::size_t n) {
#pragma GCC ivdep
  for (std::size_t i = 0; i < n; ++i) y[i] = Op::template forward<Math<T>>(x[i]);
}

template <class Op, class T>
void backward_loop(const T* saved, const T* dy, T* dx, std::size_t n, bool accumulate) {
  if (accumulate) {
#pragma GCC ivdep
    for (std::size_t i = 0; i < n; ++i) dx[i] += Op::template backward<Math<T>>(saved[i], dy[i]);
  } else {
#pragma GCC ivdep
    for (std::size_t i = 0; i < n; ++i) dx[i] = Op::template backward<Math<T>>(saved[i], dy[i]);
  }
}

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

template <class Op, class T>
void forward(const Context& context, const PointwiseForward& a) {
  const T* x = in<T>(a.x);
  T* y = out<T>(a.y);
  const bool cheap = Op::flops <= 2 && !a.x_stats && !a.y_stats;
  for_each_chunk(context, a.n, cheap ? kSerialCheap : kSerialExpensive,
                 [&](std::size_t chunk, std::size_t begin, std::size_t end) {
                   StatsLanes<T> x_lanes, y_lanes;
                   for_each_tile(begin, end, [&](std::size_t from, std::size_t to) {
                     if (a.x_stats) x_lanes.add(x + from, to - from);
                     forward_loop<Op>(x + from, y + from, to - from);
                     if (a.y_stats) {
                       y_lanes.add(y + from, to - from);
                       y_lanes.add_saturated(count_saturated<Op>(y + from, to - from));
                     }
                   });
                   if (a.x_stats) static_cast<Stats&>(context.partial(chunk, 0)) = x_lanes.result();
                   if (a.y_stats) static_cast<Stats&>(context.partial(chunk, 1)) = y_lanes.result();
                 });
  collect(context, a.n, 0, a.x_stats);
  collect(context, a.n, 1, a.y_stats);
}

template <class Op, class T>
void backward(const Context& context, const PointwiseBackward& a) {
  const T* saved = in<T>(a.saved);
  const T* dy = in<T>(a.dy);
  T* dx = out<T>(a.dx);
  const bool wanted = a.mode != GradMode::none;
  Stats* dx_stats = wanted ? a.dx_stats : nullptr;
  const bool cheap = !a.dy_stats && !dx_stats;
  for_each_chunk(context, a.n, cheap ? kSerialCheap : kSerialExpensive,
                 [&](std::size_t chunk, std::size_t begin, std::size_t end) {
                   StatsLanes<T> dy_lanes, dx_lanes;
                   for_each_tile(begin, end, [&](std::size_t from, std::size_t to) {
                     const std::size_t n = to - from;
                     if (a.dy_stats) dy_lanes.add(dy + from, n);
                     if (wanted)
                       backward_loop<Op>(saved + from, dy + from, dx + from, n,
                                         a.mode == GradMode::accumulate);
                     if (dx_stats) dx_lanes.add(dx + from, n);
                   });
                   if (a.dy_stats) static_cast<Stats&>(context.partial(chunk, 0)) = dy_lanes.result();
                   if (dx_stats) static_cast<Stats&>(context.partial(chunk, 1)) = dx_lanes.result();
                 });
  collect(context, a.n, 0, a.dy_stats);
  collect(context, a.n, 1, dx_stats);
}

template <class T>
void residual_forward(const Context& context, const ResidualForward& a) {
  const T* skip = in<T>(a.skip);
  const T* branch = in<T>(a.branch);
  T* y = out<T>(a.y);
  const T skip_factor = static_cast<T>(a.gates->forward_skip);
  const T branch_factor = static_cast<T>(a.gates->forward_branch * a.scale);
  for_each_chunk(context, a.n, a.y_stats ? kSerialExpensive : kSerialCheap,
                 [&](std::size_t chunk, std::size_t begin, std::size_t end) {
                   StatsLanes<T> lanes;
                   for_each_tile(begin, end, [&](std::size_t from, std::size_t to) {
#pragma GCC ivdep
                     for (std::size_t i = from; i < to; ++i)
                       y[i] = skip_factor * skip[i] + branch_factor * branch[i];
                     if (a.y_stats) lanes.add(y + from, to - from);
                   });
                   if (a.y_stats) static_cast<Stats&>(context.partial(chunk, 0)) = lanes.result();
                 });
  collect(context, a.n, 0, a.y_stats);
}

// The one of dskip and dbranch that aliases dy must be written last, when dy has been read for the other.
template <class T>
void residual_backward(const Context& context, const ResidualBackward& a) {
  const T* dy = in<T>(a.dy);
  T* dskip = out<T>(a.dskip);
  T* dbranch = out<T>(a.dbranch);
  const T skip_factor = static_cast<T>(a.gates->backward_skip);
  const T branch_factor = static_cast<T>(a.gates->backward_branch * a.scale);
  const bool skip_last = dskip == dy;
  for_each_chunk(context, a.n, a.dy_stats ? kSerialExpensive : kSerialCheap,
                 [&](std::size_t chunk, std::size_t begin, std::size_t end) {
                   StatsLanes<T> lanes;
                   for_each_tile(begin, end, [&](std::size_t from, std::size_t to) {
                     const std::size_t n = to - from;
                     if (a.dy_stats) lanes.add(dy + from, n);
                     if (!skip_last) scale_loop(skip_factor, dy + from, dskip + from, n, a.skip_mode);
                     scale_loop(branch_factor, dy + from, dbranch + from, n, a.branch_mode);
                     if (skip_last) scale_loop(skip_factor, dy + from, dskip + from, n, a.skip_mode);
                   });
                   if (a.dy_stats) static_cast<Stats&>(context.partial(chunk, 0)) = lanes.result();
                 });
  collect(context, a.n, 0, a.dy_stats);
}

}  // namespace

void pointwise_forward(const Context& context, const PointwiseForward& a) {
  visit_real(a.dtype,
             [&]<class T>() { ops::All::visit(a.op, [&]<class Op>() { forward<Op, T>(context, a); }); });
}

void pointwise_backward(const Context& context, const PointwiseBackward& a) {
  visit_real(a.dtype,
             [&]<class T>() { ops::All::visit(a.op, [&]<class Op>() { backward<Op, T>(context, a); }); });
}

void residual_forward(const Context& context, const ResidualForward& a) {
  visit_real(a.dtype, [&]<class T>() { residual_forward<T>(context, a); });
}

void residual_backward(const Context& context, const ResidualBackward& a) {
  visit_real(a.dtype, [&]<class T>() { residual_backward<T>(context, a); });
}

}  // namespace gradflow::kernels::cpu
