// Stand-alone statistics, the difference of two gradients, and the histogram over binary exponents.
#include "exponents.h"
#include "functions.h"
#include "stats_lanes.h"
#include "storage.h"
#include "vector_math.h"

namespace gradflow::kernels::cpu {
namespace {

template <class Op, class S>
void stats_of(const Context& context, const StatsOf& a) {
  using T = Arithmetic<S>;
  const S* x = static_cast<const S*>(a.x);
  for_each_chunk(context, a.n, kSerialExpensive, [&](std::size_t chunk, std::size_t begin, std::size_t end) {
    StatsLanes<T> lanes;
    for_each_tile(begin, end, [&](std::size_t from, std::size_t to) {
      TileIn<S> tile;
      const T* xs = tile.read(x + from, to - from);
      lanes.add(xs, to - from);
      lanes.add_saturated(count_saturated<Op>(xs, to - from));
    });
    static_cast<Stats&>(context.partial(chunk, 0)) = lanes.result();
  });
  for (std::size_t i = 0; i < Chunks(a.n).count; ++i) add(*a.out, context.partial(i, 0));
}

template <class S>
void difference_of(const Context& context, const DifferenceStats& a) {
  using T = Arithmetic<S>;
  const S* total_stored = static_cast<const S*>(a.a);
  const S* part_stored = static_cast<const S*>(a.b);
  for_each_chunk(context, a.n, kSerialExpensive, [&](std::size_t chunk, std::size_t begin, std::size_t end) {
    StatsLanes<double> lanes(std::numeric_limits<T>::min());
    double dot[16] = {};
    for_each_tile(begin, end, [&](std::size_t from, std::size_t to) {
      double difference[kTile];
      const std::size_t n = to - from;
      TileIn<S> total_tile, part_tile;
      const T* total = total_tile.read(total_stored + from, n);
      const T* part = part_tile.read(part_stored + from, n);
      for (std::size_t i = 0; i < n; ++i)
        difference[i] = static_cast<double>(total[i]) - static_cast<double>(part[i]);
      std::size_t i = 0;
      for (; i + 16 <= n; i += 16)
        for (std::size_t l = 0; l < 16; ++l)
          dot[l] += static_cast<double>(part[i + l]) * difference[i + l];
      for (std::size_t l = 0; i < n; ++i, ++l) dot[l] += static_cast<double>(part[i]) * difference[i];
      lanes.add(difference, n);
    });
    static_cast<Stats&>(context.partial(chunk, 0)) = lanes.result();
    double sum = 0;
    for (double d : dot) sum += d;
    context.sums[chunk] = sum;
  });
  for (std::size_t i = 0; i < Chunks(a.n).count; ++i) {
    if (a.difference) add(*a.difference, context.partial(i, 0));
    if (a.dot) *a.dot += context.sums[i];
  }
}

template <class S>
void histogram_of(const Context& context, const ExponentHistogram& a) {
  const S* x = static_cast<const S*>(a.x);
  for_each_chunk(context, a.n, kSerialExpensive, [&](std::size_t, std::size_t begin, std::size_t end) {
    ExponentCounts counts(a.bins);
    counts.add(x + begin, end - begin);
    counts.flush();
  });
}

}  // namespace

void stats(const Context& context, const StatsOf& a) {
  visit_stored(a.dtype,
               [&]<class S>() { ops::All::visit(a.op, [&]<class Op>() { stats_of<Op, S>(context, a); }); });
}

void difference_stats(const Context& context, const DifferenceStats& a) {
  visit_stored(a.dtype, [&]<class S>() { difference_of<S>(context, a); });
}

void exponent_histogram(const Context& context, const ExponentHistogram& a) {
  visit_stored(a.dtype, [&]<class S>() { histogram_of<S>(context, a); });
}

}  // namespace gradflow::kernels::cpu
