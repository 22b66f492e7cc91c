// Stand-alone statistics, the difference of two gradients, and the histogram over binary exponents.
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

std::size_t exponent_bin(float x) {
  const std::uint32_t bits = std::bit_cast<std::uint32_t>(x) & 0x7fffffffu;
  if (bits == 0) return kZeroBin;
  if (bits > 0x7f800000u) return kNanBin;
  if (bits == 0x7f800000u) return kInfinityBin;
  const int biased = static_cast<int>(bits >> 23);
  // A denormal is mantissa * 2^-149: its exponent is the position of the mantissa's highest bit.
  const int exponent = biased ? biased - 127 : static_cast<int>(std::bit_width(bits)) - 1 + kMinExponent;
  return static_cast<std::size_t>(1 + exponent - kMinExponent);
}

std::size_t exponent_bin(double x) {
  const std::uint64_t bits = std::bit_cast<std::uint64_t>(x) & ~(std::uint64_t{1} << 63);
  constexpr std::uint64_t kInfinity = 0x7ff0000000000000u;
  if (bits == 0) return kZeroBin;
  if (bits > kInfinity) return kNanBin;
  if (bits == kInfinity) return kInfinityBin;
  const int exponent = static_cast<int>(bits >> 52) - 1023;  // denormals of f64 fall far below kMinExponent
  return static_cast<std::size_t>(1 + std::clamp(exponent, kMinExponent, kMaxExponent) - kMinExponent);
}

template <class S>
void histogram_of(const Context& context, const ExponentHistogram& a) {
  const S* x = static_cast<const S*>(a.x);
  for_each_chunk(context, a.n, kSerialExpensive, [&](std::size_t, std::size_t begin, std::size_t end) {
    std::uint64_t counts[kExponentBins] = {};
    for (std::size_t i = begin; i < end; ++i) ++counts[exponent_bin(widen(x[i]))];
      // Integers: the order in which chunks arrive does not matter.
#pragma omp critical(gradflow_exponent_histogram)
    for (std::size_t b = 0; b < kExponentBins; ++b) a.bins[b] += counts[b];
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
