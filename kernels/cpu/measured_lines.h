// What a pass over lines of columns (columns.h) measures of the arrays it reads or writes, as pointwise passes do
// tile by tile: lines are copied together until they fill a tile, so that the statistics' loops run over long
// arrays. Passing a sink thereby changes nothing about how the pass computes.
//
//   const PieceStats statistics(room, m);              // room for 2 sinks: PieceStats::room(m, 2) doubles
//   for_each_piece(context, m, [&](chunk, block) {
//     LineSink<T> y_sink(a.y_stats, a.y_exponents, a.op);
//     for_each_line(piece, [&](...) { y_sink.add(line, lanes); });
//     y_sink.close(statistics.of(chunk, block, 0));
//   });
//   statistics.add_to(a.y_stats, 0);
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "columns.h"
#include "exponents.h"
#include "stats_lanes.h"

namespace gradflow::kernels::cpu {

// The statistics of every piece for each of some sinks, added in an order that depends on the shape alone.
class PieceStats {
 public:
  static std::size_t room(const Columns& m, std::size_t sinks) {
    static_assert(sizeof(Stats) % sizeof(double) == 0);
    return m.tasks() * sinks * (sizeof(Stats) / sizeof(double));
  }
  PieceStats(double* room, const Columns& m) : at_(reinterpret_cast<Stats*>(room)), m_(m) {}

  Stats& of(std::size_t chunk, std::size_t block, std::size_t sink) const {
    return at_[sink * m_.tasks() + block * m_.chunks + chunk];
  }
  void add_to(Stats* sink, std::size_t which) const {
    if (!sink) return;
    for (std::size_t i = 0; i < m_.tasks(); ++i) add(*sink, at_[which * m_.tasks() + i]);
  }

 private:
  Stats* at_;
  const Columns& m_;
};

// One array in one piece; with null sinks every call returns at once. T is what is computed with: f32 for bf16, whose
// numbers are passed as they are stored.
template <class T>
class LineSink {
 public:
  LineSink(const Stats* stats, std::uint64_t* exponents, PointwiseId op = PointwiseId::identity)
      : stats_(stats), asked_(stats || exponents), op_(op), exponents_(exponents) {}

  bool asked() const { return asked_; }
  void add(const T* line, std::size_t lanes) {
    if (!asked_) return;
    std::copy(line, line + lanes, tile_ + filled_);
    filled_ += lanes;
    if (filled_ + kLanes > kTile) drain();
  }
  void close(Stats& result) {
    if (!asked_) return;
    drain();
    exponents_.flush();
    if (stats_) result = lanes_.result();
  }

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

}  // namespace gradflow::kernels::cpu
