// What both directions of batch normalization share: scratch memory, sums over rows, stored lines.
//
// Two passes each way over lines of 64 lanes (columns.h): sums in f64, then the result. The arithmetic
// between is that of the separate operations, rounding by rounding (in bf16 also the one with which each of
// them stores its result), so a fused pass has their bits. Statistics and parameters of a bf16 call are f32.
#pragma once

#include <bit>
#include <cstring>
#include <string>

#include "columns.h"
#include "functions.h"
#include "gradflow/kernels/error.h"
#include "measured_lines.h"
#include "storage.h"
#include "vector_math.h"

namespace gradflow::kernels::cpu {

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

inline void require_output_op(PointwiseId op) {
  if (info_of(op).saves != Saves::y)
    throw InternalError("batch norm cannot end in '" + std::string(info_of(op).name) +
                        "', which saves its input");
}

}  // namespace gradflow::kernels::cpu
