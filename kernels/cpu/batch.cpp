// Batches gathered from a data set, constant and random fills, casts.
#include "functions.h"
#include "gradflow/kernels/error.h"
#include "gradflow/kernels/random.h"
#include "storage.h"

namespace gradflow::kernels::cpu {
namespace {

template <class S>
struct Gather {
  using T = Arithmetic<S>;
  const GatherBatch& a;
  T mean, inv_std;

  S value(const std::uint8_t* image, std::size_t f) const {
    const T center = a.pixel_mean ? static_cast<T>(a.pixel_mean[f]) : mean;
    return narrow<S>((static_cast<T>(static_cast<int>(image[f])) / T(255) - center) * inv_std);
  }

  void whole(const std::uint8_t* image, S* x) const {
    for (std::size_t f = 0; f < a.features; ++f) x[f] = value(image, f);
  }

  void cropped(const std::uint8_t* image, const std::int8_t* crop, S* x) const {
    const std::int64_t height = static_cast<std::int64_t>(a.height), width = static_cast<std::int64_t>(a.width);
    for (std::int64_t i = 0; i < height; ++i)
      for (std::int64_t j = 0; j < width; ++j, x += a.channels) {
        const std::int64_t row = i + crop[0], column = (crop[2] ? width - 1 - j : j) + crop[1];
        const bool inside = row >= 0 && row < height && column >= 0 && column < width;
        const std::size_t at = inside ? static_cast<std::size_t>(row * width + column) * a.channels : 0;
        for (std::size_t c = 0; c < a.channels; ++c) x[c] = inside ? value(image, at + c) : narrow<S>(T(0));
      }
  }
};

template <class S>
void gather(const Context& context, const GatherBatch& a) {
  using T = Arithmetic<S>;
  const Gather<S> from{a, static_cast<T>(a.mean), static_cast<T>(a.inv_std)};
  for_each_index(context, a.batch, a.batch * a.features >= kSerialCheap, [&](std::size_t b) {
    const std::size_t source = static_cast<std::size_t>(a.indices[b]);
    const std::uint8_t* image = a.images + source * a.features;
    S* x = static_cast<S*>(a.x) + b * a.features;
    if (a.channels != 0 && a.crops)
      from.cropped(image, a.crops + 3 * b, x);
    else
      from.whole(image, x);
    if (a.y) a.y[b] = a.labels[source];
  });
}

template <class T>
void fill_with(const Context& context, T* x, std::size_t n, T value) {
  for_each_chunk(context, n, kSerialCheap, [&](std::size_t, std::size_t begin, std::size_t end) {
    std::fill(x + begin, x + end, value);
  });
}

template <class From, class To>
void cast_all(const Context& context, const Cast& a) {
  const From* x = static_cast<const From*>(a.x);
  To* y = static_cast<To*>(a.y);
  for_each_chunk(context, a.n, kSerialCheap, [&](std::size_t, std::size_t begin, std::size_t end) {
    for (std::size_t i = begin; i < end; ++i) y[i] = narrow<To>(static_cast<Arithmetic<To>>(widen(x[i])));
  });
}

// A pair that the first or last position cuts is drawn whole and written in part.
template <class S>
void fill_random(const Context& context, const RandomFill& a) {
  S* x = static_cast<S*>(a.x);
  const bool normal = a.distribution == Distribution::normal;
  const double factor = normal ? a.b : a.b - a.a;
  const auto put = [&](std::size_t i, double v) { x[i] = narrow<S>(static_cast<Arithmetic<S>>(a.a + factor * v)); };
  const std::uint64_t last = a.first + a.n, begin = a.first / 2;
  for_each_chunk(context, last / 2 + last % 2 - begin, 1024, [&](std::size_t, std::size_t from, std::size_t to) {
    for (std::uint64_t pair = begin + from; pair < begin + to; ++pair) {
      const philox::Pair v = normal ? philox::normal_pair(a.seed, a.purpose, pair)
                                    : philox::uniform_pair(a.seed, a.purpose, pair);
      if (2 * pair >= a.first) put(2 * pair - a.first, v.first);
      if (2 * pair + 1 < last) put(2 * pair + 1 - a.first, v.second);
    }
  });
}

}  // namespace

void gather_batch(const Context& context, const GatherBatch& a) {
  if (a.channels != 0 && a.height * a.width * a.channels != a.features)
    throw InternalError("gather_batch: height, width and channels do not make up the features");
  visit_stored(a.dtype, [&]<class S>() { gather<S>(context, a); });
}

void fill(const Context& context, DType dtype, void* pointer, std::size_t n, double value) {
  visit_stored(dtype, [&]<class S>() {
    fill_with(context, static_cast<S*>(pointer), n, narrow<S>(static_cast<Arithmetic<S>>(value)));
  });
}

void cast(const Context& context, const Cast& a) {
  if (a.from == a.to) throw InternalError("a cast to the same type");
  visit_stored(a.from, [&]<class From>() {
    visit_stored(a.to, [&]<class To>() { cast_all<From, To>(context, a); });
  });
}

void random_fill(const Context& context, const RandomFill& a) {
  visit_stored(a.dtype, [&]<class S>() {
    if (a.n != 0) fill_random<S>(context, a);
  });
}

}  // namespace gradflow::kernels::cpu
