// What a pass over lines of columns (columns.h) measures of the arrays it reads or writes, as pointwise passes do
// tile by tile: lines are copied together until they fill a tile, so that the statistics' loops run over long
// arrays. Passing a sink thereby changes nothing about how the pass computes.
//
//   const PieceStats statistics(room, m);              // room for 2 sinks: PieceStats::room(m, 2) doubles
//   for_each_piece(context, m, [&](chunk, block) {
//     LineSink<T> x_sink(a.x_stats, a.x_exponents), y_sink(a.y_stats, a.y_exponents, a.op);
//     for_each_line(piece, [&](...) { x_sink.add(line, lanes); ... });
//     statistics.close(chunk, block, {&x_sink, &y_sink});
//   });
//   statistics.add_to({a.x_stats, a.y_stats});
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <initializer_list>

#include "columns.h"
#include "exponents.h"
#include "stats_lanes.h"

namespace gradflow::kernels::cpu {

// One array in one piece; with null sinks every call returns at once. T is what is computed with: f32 for bf16, whose
// numbers are passed as they are stored.
template <class T>
class LineSink {
 public:
  LineSink(const Stats* stats, std::uint64_t* exponents, PointwiseId op = PointwiseId::identity)
      : stats_(stats), asked_(stats || exponents), op_(op), exponents_(exponents) {}

  // number(lane) of at most kLanes lanes.
  template <class F>
  void add_each(std::size_t lanes, const F& number) {
    if (!asked_) return;
    for (std::size_t l = 0; l < lanes; ++l) tile_[filled_ + l] = number(l);
    filled_ += lanes;
    if (filled_ + kLanes > kTile) drain();
  }
  void add(const T* line, std::size_t lanes) {
    add_each(lanes, [line](std::size_t l) { return line[l]; });
  }
  void close(Stats& result) {
    drain();
    exponents_.flush();
    result = lanes_.result();
  }
  bool asked() const { return asked_; }

 private:
  [[gnu::noinline]] void drain() {
    exponents_.add(tile_, filled_);
    if (stats_) {
      lanes_.add(tile_, filled_);
      ops::All::visit(op_, [&]<class Op>() { lanes_.add_saturated(count_saturated<Op>(tile_, filled_)); });
    }
    filled_ = 0;
  }

  const Stats* stats_;
  bool asked_;
  PointwiseId op_;
  std::size_t filled_ = 0;
  StatsLanes<T> lanes_;
  ExponentCounts exponents_;
  alignas(64) T tile_[kTile];
};

// The statistics of every piece for each of some sinks, added in an order that depends on the shape alone. Sinks are
// given in one order to close() and add_to().
class PieceStats {
 public:
  static std::size_t room(const Columns& m, std::size_t sinks) {
    static_assert(sizeof(Stats) % sizeof(double) == 0);
    return m.tasks() * sinks * (sizeof(Stats) / sizeof(double));
  }
  PieceStats(double* room, const Columns& m) : at_(reinterpret_cast<Stats*>(room)), m_(m) {}

  template <class T>
  void close(std::size_t chunk, std::size_t block, std::initializer_list<LineSink<T>*> sinks) const {
    Stats* to = at_ + block * m_.chunks + chunk;
    for (LineSink<T>* sink : sinks) {
      if (sink->asked()) sink->close(*to);
      to += m_.tasks();
    }
  }
  void add_to(std::initializer_list<Stats*> sinks) const {
    const Stats* from = at_;
    for (Stats* sink : sinks) {
      for (std::size_t i = 0; sink && i < m_.tasks(); ++i) add(*sink, from[i]);
      from += m_.tasks();
    }
  }

 private:
  Stats* at_;
  const Columns& m_;
};

}  // namespace gradflow::kernels::cpu
