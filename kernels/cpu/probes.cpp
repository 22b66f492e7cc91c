// Stand-alone statistics, the difference of two gradients, and the histogram over binary exponents.
#include "functions.h"
#include "stats_lanes.h"
#include "vector_math.h"

namespace gradflow::kernels::cpu {
namespace {

static_assert(kTile <= kMaxStatsTile);

template <class Op, class T>
void stats_of(const Context& context, const StatsOf& a) {
  const T* x = static_cast<const T*>(a.x);
  for_each_chunk(context, a.n, kSerialExpensive, [&](std::size_t chunk, std::size_t begin, std::size_t end) {
    StatsLanes<T> lanes;
    for_each_tile(begin, end, [&](std::size_t from, std::size_t to) {
      lanes.add(x + from, to - from);
      lanes.add_saturated(count_saturated<Op>(x + from, to - from));
    });
    static_cast<Stats&>(context.partial(chunk, 0)) = lanes.result();
  });
  for (std::size_t i = 0; i < Chunks(a.n).count; ++i) add(*a.out, context.partial(i, 0));
}

template <class T>
void difference_of(const Context& context, const DifferenceStats& a) {
  const T* total = static_cast<const T*>(a.a);
  const T* part = static_cast<const T*>(a.b);
  for_each_chunk(context, a.n, kSerialExpensive, [&](std::size_t chunk, std::size_t begin, std::size_t end) {
    StatsLanes<double> lanes(std::numeric_limits<T>::min());
    double dot[16] = {};
    for_each_tile(begin, end, [&](std::size_t from, std::size_t to) {
      double difference[kTile];
      const std::size_t n = to - from;
      for (std::size_t i = 0; i < n; ++i)
        difference[i] = static_cast<double>(total[from + i]) - static_cast<double>(part[from + i]);
      std::size_t i = 0;
      for (; i + 16 <= n; i += 16)
        for (std::size_t l = 0; l < 16; ++l)
          dot[l] += static_cast<double>(part[from + i + l]) * difference[i + l];
      for (std::size_t l = 0; i < n; ++i, ++l) dot[l] += static_cast<double>(part[from + i]) * difference[i];
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

template <class T>
void histogram_of(const Context& context, const ExponentHistogram& a) {
  const T* x = static_cast<const T*>(a.x);
  for_each_chunk(context, a.n, kSerialExpensive, [&](std::size_t, std::size_t begin, std::size_t end) {
    std::uint64_t counts[kExponentBins] = {};
    for (std::size_t i = begin; i < end; ++i) ++counts[exponent_bin(x[i])];
      // Integers: the order in which chunks arrive does not matter.
#pragma omp critical(gradflow_exponent_histogram)
    for (std::size_t b = 0; b < kExponentBins; ++b) a.bins[b] += counts[b];
  });
}

template <class T>
void gather(const Context& context, const GatherBatch& a) {
  const T mean = static_cast<T>(a.mean), inv_std = static_cast<T>(a.inv_std);
  for_each_index(context, a.batch, a.batch * a.features >= kSerialCheap, [&](std::size_t b) {
    const std::size_t source = static_cast<std::size_t>(a.indices[b]);
    const std::uint8_t* image = a.images + source * a.features;
    T* x = static_cast<T*>(a.x) + b * a.features;
    for (std::size_t f = 0; f < a.features; ++f)
      x[f] = (static_cast<T>(static_cast<int>(image[f])) / T(255) - mean) * inv_std;
    if (a.y) a.y[b] = a.labels[source];
  });
}

template <class T>
void fill_with(const Context& context, T* x, std::size_t n, T value) {
  for_each_chunk(context, n, kSerialCheap, [&](std::size_t, std::size_t begin, std::size_t end) {
    std::fill(x + begin, x + end, value);
  });
}

}  // namespace

void stats(const Context& context, const StatsOf& a) {
  visit_real(a.dtype,
             [&]<class T>() { ops::All::visit(a.op, [&]<class Op>() { stats_of<Op, T>(context, a); }); });
}

void difference_stats(const Context& context, const DifferenceStats& a) {
  visit_real(a.dtype, [&]<class T>() { difference_of<T>(context, a); });
}

void exponent_histogram(const Context& context, const ExponentHistogram& a) {
  visit_real(a.dtype, [&]<class T>() { histogram_of<T>(context, a); });
}

void gather_batch(const Context& context, const GatherBatch& a) {
  visit_real(a.dtype, [&]<class T>() { gather<T>(context, a); });
}

void fill(const Context& context, DType dtype, void* pointer, std::size_t n, double value) {
  visit_real(dtype,
             [&]<class T>() { fill_with(context, static_cast<T*>(pointer), n, static_cast<T>(value)); });
}

}  // namespace gradflow::kernels::cpu
