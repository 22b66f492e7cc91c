// Column sums (bias gradients), the alive mask, and softmax cross-entropy.
#include <cmath>

#include "columns.h"
#include "functions.h"
#include "storage.h"
#include "vector_math.h"

namespace gradflow::kernels::cpu {
namespace {

constexpr std::size_t kColumnBlock = 64;

template <class Body>
void for_each_column_block(const Context& context, std::size_t rows, std::size_t columns, const Body& body) {
  const std::size_t blocks = (columns + kColumnBlock - 1) / kColumnBlock;
  for_each_index(context, blocks, rows * columns >= kSerialCheap, [&](std::size_t i) {
    const std::size_t first = i * kColumnBlock;
    body(first, std::min(kColumnBlock, columns - first));
  });
}

template <class S>
void column_sums(const Context& context, const ColumnSum& a) {
  using T = Arithmetic<S>;
  const Columns m(a.rows, a.columns);
  double* room = context.room(m.tasks() * (sizeof(LanePair) / sizeof(double)) + a.columns);
  auto* partials = reinterpret_cast<LanePair*>(room);
  double* sums = room + m.tasks() * (sizeof(LanePair) / sizeof(double));
  const S* x = static_cast<const S*>(a.x);
  for_each_piece(context, m, [&](std::size_t chunk, std::size_t block) {
    LanePair s;
    for_each_line(piece_of(m, chunk, block), [&](std::size_t offset, auto lanes) {
      for (std::size_t l = 0; l < lanes; ++l) s.a[l] += static_cast<double>(widen(x[offset + l]));
    });
    partials[block * m.chunks + chunk] = s;
  });
  for (std::size_t j = 0; j < m.blocks; ++j) fold(m, partials, j, sums, nullptr);
  T* y = static_cast<T*>(a.y);
  for (std::size_t c = 0; c < a.columns; ++c)
    y[c] = static_cast<T>(a.mode == GradMode::accumulate ? static_cast<double>(y[c]) + sums[c] : sums[c]);
}

template <class S>
void mark_alive_block(const MarkAlive& a, std::size_t first, std::size_t width) {
  std::uint8_t* alive = a.alive + first;
  for (std::size_t r = 0; r < a.rows; ++r) {
    const S* y = static_cast<const S*>(a.y) + r * a.columns + first;
    for (std::size_t c = 0; c < width; ++c)
      alive[c] = static_cast<std::uint8_t>(alive[c] | !(widen(y[c]) <= 0));  // true for NaN
  }
}

struct Largest {
  double value;
  std::size_t index;
  bool nan;
};

template <class S>
Largest largest(const S* x, std::size_t n) {
  auto best = widen(x[0]);
  std::size_t index = 0;
  bool nan = best != best;
  for (std::size_t i = 1; i < n; ++i) {
    const auto v = widen(x[i]);
    nan = nan || v != v;
    if (v > best) {
      best = v;
      index = i;
    }
  }
  return {static_cast<double>(best), index, nan};
}

// One row; returns its loss. With m the largest logit and s = sum exp(x - m): loss = log s - (x[label] - m).
template <class S>
double softmax_row(const S* x, std::size_t n, std::size_t label, double per_row, S* dx, bool& correct) {
  using T = Arithmetic<S>;
  const Largest top = largest(x, n);
  correct = !top.nan && top.index == label;
  const T m = top.nan ? std::numeric_limits<T>::quiet_NaN() : static_cast<T>(top.value);
  // A label out of range is a broken promise of the caller; it shows as a loss that is not a number.
  const double own = label < n ? static_cast<double>(widen(x[label])) - static_cast<double>(m)
                               : std::numeric_limits<double>::quiet_NaN();
  constexpr bool kKeep = std::is_same_v<S, T>;  // dx can hold the exps until their sum is known
  const auto exps_of = [&](std::size_t from, std::size_t to, T* exps) {
    TileIn<S> tile;
    const T* xs = tile.read(x + from, to - from);
    for (std::size_t i = 0; i < to - from; ++i) exps[i] = Math<T>::exp(xs[i] - m);
  };
  double sum = 0;
  for_each_tile(0, n, [&](std::size_t from, std::size_t to) {
    T exps[kTile];
    exps_of(from, to, exps);
    for (std::size_t i = from; i < to; ++i) sum += static_cast<double>(exps[i - from]);
    if constexpr (kKeep)
      if (dx)
        for (std::size_t i = from; i < to; ++i) dx[i] = exps[i - from];
  });
  if (dx) {
    const T factor = static_cast<T>(per_row / sum);
    double own_exp = 0;
    if constexpr (kKeep) {
      own_exp = label < n ? static_cast<double>(dx[label]) : 0.0;
      for (std::size_t i = 0; i < n; ++i) dx[i] *= factor;
    } else {
      for_each_tile(0, n, [&](std::size_t from, std::size_t to) {
        T exps[kTile];
        exps_of(from, to, exps);
        if (label >= from && label < to) own_exp = static_cast<double>(exps[label - from]);
        for (std::size_t i = from; i < to; ++i) dx[i] = narrow<S>(exps[i - from] * factor);
      });
    }
    if (label < n) dx[label] = narrow<S>(static_cast<T>((own_exp / sum - 1.0) * per_row));
  }
  return std::log(sum) - own;
}

template <class S>
void softmax_rows(const Context& context, const SoftmaxCrossEntropy& a) {
  const std::size_t chunk = std::max<std::size_t>(std::max<std::size_t>(1, 1024 / a.classes),
                                                  (a.rows + kMaxChunks - 1) / kMaxChunks);
  const std::size_t chunks = (a.rows + chunk - 1) / chunk;
  const double per_row = 1.0 / static_cast<double>(a.rows);
  for_each_index(context, chunks, a.rows * a.classes >= kSerialExpensive, [&](std::size_t i) {
    double loss = 0, correct = 0;
    for (std::size_t r = i * chunk; r < std::min(a.rows, (i + 1) * chunk); ++r) {
      const std::size_t at = r * a.classes;
      bool row_correct = false;
      loss +=
          softmax_row(static_cast<const S*>(a.logits) + at, a.classes, static_cast<std::size_t>(a.labels[r]),
                      per_row, a.dlogits ? static_cast<S*>(a.dlogits) + at : nullptr, row_correct);
      correct += row_correct;
    }
    context.sums[i * 2] = loss;
    context.sums[i * 2 + 1] = correct;
  });
  if (!a.result) return;
  double loss = 0, correct = 0;
  for (std::size_t i = 0; i < chunks; ++i) {
    loss += context.sums[i * 2];
    correct += context.sums[i * 2 + 1];
  }
  a.result->loss_sum += loss;
  a.result->rows += a.rows;
  a.result->correct += static_cast<std::uint64_t>(correct);
}

}  // namespace

void column_sum(const Context& context, const ColumnSum& a) {
  if (a.rows == 0 || a.columns == 0 || a.mode == GradMode::none) return;
  visit_stored(a.dtype, [&]<class S>() { column_sums<S>(context, a); });
}

void mark_alive(const Context& context, const MarkAlive& a) {
  visit_stored(a.dtype, [&]<class S>() {
    for_each_column_block(context, a.rows, a.columns, [&](std::size_t first, std::size_t width) {
      mark_alive_block<S>(a, first, width);
    });
  });
}

void softmax_cross_entropy(const Context& context, const SoftmaxCrossEntropy& a) {
  require_stored(a.dtype);
  if (a.rows == 0 || a.classes == 0) return;
  visit_stored(a.dtype, [&]<class S>() { softmax_rows<S>(context, a); });
}

}  // namespace gradflow::kernels::cpu
