// How the host backend cuts work into pieces: fixed chunks, the same whatever the thread count.
//
// Each chunk's partial result is stored by chunk number and the partials are added in that order, so
// sums have the same bits with 1 thread and with 2. Small lengths stay on the calling thread, where
// opening a parallel region would cost more than the work.
#pragma once

#include <algorithm>
#include <cstddef>
#include <memory>
#include <vector>

#include "gradflow/kernels/backend.h"

namespace gradflow::kernels::cpu {

inline constexpr std::size_t kMaxChunks = 512;
inline constexpr std::size_t kMinChunk = 8192;  // elements
inline constexpr std::size_t kTile = 1024;      // elements that stay in the L1 cache between two passes
inline constexpr std::size_t kMaxSinks = 3;     // statistics sinks of one launch

// Serial below: about 2 microseconds of work, the price of a parallel region.
inline constexpr std::size_t kSerialCheap = 12288;     // load, a few operations, store
inline constexpr std::size_t kSerialExpensive = 8193;  // exp, tanh, statistics

struct Chunks {
  std::size_t length, size, count;

  explicit Chunks(std::size_t n) : length(n) {
    const std::size_t needed = (n + kMaxChunks - 1) / kMaxChunks;
    size = std::max(kMinChunk, (needed + kTile - 1) / kTile * kTile);
    count = (n + size - 1) / size;
  }
  std::size_t begin(std::size_t i) const { return i * size; }
  std::size_t end(std::size_t i) const { return std::min(length, (i + 1) * size); }
};

struct alignas(64) PartialStats : Stats {};

// What the host functions share: the thread count and room for partial results, allocated once.
struct Context {
  int threads = 1;
  std::unique_ptr<PartialStats[]> partials = std::make_unique<PartialStats[]>(kMaxChunks * kMaxSinks);
  std::unique_ptr<std::vector<double>> columns = std::make_unique<std::vector<double>>();  // grows, see room()
  std::unique_ptr<double[]> sums = std::make_unique<double[]>(kMaxChunks * kMaxSinks);

  // `count` numbers for the work on columns, valid until the next call; allocates only when it grows.
  double* room(std::size_t count) const {
    if (columns->size() < count) columns->resize(count);
    return columns->data();
  }
  PartialStats& partial(std::size_t chunk, std::size_t sink) const {
    return partials[chunk * kMaxSinks + sink];
  }
};

// Calls body(i) for i in [0, count), on several threads if `parallel`; body must not throw.
template <class Body>
void for_each_index(const Context& context, std::size_t count, bool parallel, const Body& body) {
  if (!parallel || context.threads == 1 || count < 2) {
    for (std::size_t i = 0; i < count; ++i) body(i);
    return;
  }
#pragma omp parallel for schedule(static) num_threads(context.threads)
  for (std::size_t i = 0; i < count; ++i) body(i);
}

// Calls body(chunk, begin, end) for the chunks of n elements.
template <class Body>
void for_each_chunk(const Context& context, std::size_t n, std::size_t serial_below, const Body& body) {
  const Chunks chunks(n);
  for_each_index(context, chunks.count, n >= serial_below,
                 [&](std::size_t i) { body(i, chunks.begin(i), chunks.end(i)); });
}

// Calls body(begin, end) for the tiles of [begin, end).
template <class Body>
void for_each_tile(std::size_t begin, std::size_t end, const Body& body) {
  for (std::size_t t = begin; t < end; t += kTile) body(t, std::min(end, t + kTile));
}

// Calls f.template operator()<float>() or <double>(); throws UserError for any other type.
void require_real(DType dtype);
template <class F>
void visit_real(DType dtype, F&& f) {
  require_real(dtype);
  if (dtype == DType::f32)
    f.template operator()<float>();
  else
    f.template operator()<double>();
}

}  // namespace gradflow::kernels::cpu
