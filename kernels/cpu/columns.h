// How work over a matrix [rows, channels] is cut when each channel has its own numbers: batch norm, column
// sums.
//
// Convolutions make tall, narrow matrices (131072 x 16), where splitting channels alone would feed one
// thread. So both are cut: channels into blocks of at most kLanes, rows into chunks whose size depends on the
// shape alone; sums of chunks are added in chunk order, hence the same bits with any number of threads.
//
// Narrow rows are read several at a time: with 16 channels, four rows are one line of 64 lanes, lane l
// holding channel l % 16. Inner loops then have a constant length, whatever the number of channels.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <type_traits>
#include <vector>

#include "parallel.h"

namespace gradflow::kernels::cpu {

inline constexpr std::size_t kLanes = 64;
inline constexpr std::size_t kLinesOfChunk = 256;  // 64 KiB of f32: large against the price of a task
inline constexpr std::size_t kMaxColumnTasks = 128;

struct Columns {
  std::size_t rows, channels;
  std::size_t repeat;         // rows in a line
  std::size_t stride;         // elements from one line to the next
  std::size_t lines;          // the last one may hold fewer than `repeat` rows
  std::size_t blocks;         // of channels; 1 where repeat > 1
  std::size_t chunk, chunks;  // lines of a chunk, chunks

  Columns(std::size_t r, std::size_t c) : rows(r), channels(c) {
    repeat = c == 0 ? 1 : std::max<std::size_t>(1, kLanes / c);
    stride = repeat * c;
    lines = (r + repeat - 1) / repeat;
    blocks = repeat > 1 ? 1 : (c + kLanes - 1) / kLanes;
    const std::size_t most = std::max<std::size_t>(1, kMaxColumnTasks / std::max<std::size_t>(1, blocks));
    chunk = std::max(kLinesOfChunk, (lines + most - 1) / most);
    chunks = (lines + chunk - 1) / chunk;
  }

  std::size_t tasks() const { return blocks * chunks; }
  std::size_t first_channel(std::size_t block) const { return block * kLanes; }
  std::size_t width(std::size_t block) const { return std::min(kLanes, stride - first_channel(block)); }
};

// Lanes of one block in some lines.
struct ColumnPiece {
  std::size_t first, width, stride;  // of element (line, lane): line * stride + first + lane
  std::size_t begin, end;            // lines
  std::size_t last_width;            // lanes of line end - 1
};

inline ColumnPiece piece_of(const Columns& m, std::size_t chunk, std::size_t block) {
  ColumnPiece p{m.first_channel(block),
                m.width(block),
                m.stride,
                chunk * m.chunk,
                std::min(m.lines, (chunk + 1) * m.chunk),
                m.width(block)};
  if (p.end == m.lines && m.rows % m.repeat != 0) p.last_width = m.rows % m.repeat * m.channels;
  return p;
}

// Calls body(chunk, block) for all pieces.
template <class Body>
void for_each_piece(const Context& context, const Columns& m, const Body& body) {
  for_each_index(context, m.tasks(), m.rows * m.channels >= kSerialCheap,
                 [&](std::size_t i) { body(i / m.blocks, i % m.blocks); });
}

// Calls line(offset, lanes) for the lines of a piece; `lanes` is a constant where the line is full.
template <class Line>
void for_each_line(const ColumnPiece& p, const Line& line) {
  const bool short_end = p.last_width != p.width;
  const std::size_t whole = p.end - (short_end ? 1 : 0);
  if (p.width == kLanes) {
    for (std::size_t v = p.begin; v < whole; ++v)
      line(v * p.stride + p.first, std::integral_constant<std::size_t, kLanes>());
  } else {
    for (std::size_t v = p.begin; v < whole; ++v) line(v * p.stride + p.first, p.width);
  }
  if (short_end) line(whole * p.stride + p.first, p.last_width);
}

// Eight numbers in one register (or as many as it takes).
inline constexpr std::size_t kPackLanes = 8;
typedef float FloatPack __attribute__((vector_size(32)));
typedef double DoublePack __attribute__((vector_size(64)));

inline DoublePack load_wide(const float* p) {
  FloatPack v;
  std::memcpy(&v, p, sizeof v);
  return __builtin_convertvector(v, DoublePack);
}
inline DoublePack load_wide(const double* p) {
  DoublePack v;
  std::memcpy(&v, p, sizeof v);
  return v;
}

// Two f64 sums of each lane.
struct LanePair {
  double a[kLanes] = {}, b[kLanes] = {};
};

// sums(first lane, packs) -> per-channel totals: the partial results of all chunks, in order.
// partials[(block * chunks + chunk)]; out_a and out_b have `channels` elements (b may be null).
inline void fold(const Columns& m, const LanePair* partials, std::size_t block, double* out_a,
                 double* out_b) {
  LanePair total;
  const std::size_t width = m.width(block);
  for (std::size_t k = 0; k < m.chunks; ++k) {
    const LanePair& p = partials[block * m.chunks + k];
    for (std::size_t l = 0; l < width; ++l) total.a[l] += p.a[l];
    for (std::size_t l = 0; l < width; ++l) total.b[l] += p.b[l];
  }
  const std::size_t first = m.first_channel(block), count = std::min(kLanes, m.channels - first);
  for (std::size_t c = 0; c < count; ++c) {
    double a = 0, b = 0;
    for (std::size_t l = c; l<width; l += m.repeat> 1 ? m.channels : kLanes) {
      a += total.a[l];
      b += total.b[l];
    }
    out_a[first + c] = a;
    if (out_b) out_b[first + c] = b;
  }
}

}  // namespace gradflow::kernels::cpu
