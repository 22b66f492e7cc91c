// Column sums (bias gradients), the alive mask, and softmax cross-entropy.
#include <cmath>

#include "functions.h"
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

template <class T>
void column_sum_block(const ColumnSum& a, std::size_t first, std::size_t width) {
  double sum[kColumnBlock] = {};
  for (std::size_t r = 0; r < a.rows; ++r) {
    const T* x = static_cast<const T*>(a.x) + r * a.columns + first;
    for (std::size_t c = 0; c < width; ++c) sum[c] += static_cast<double>(x[c]);
  }
  T* y = static_cast<T*>(a.y) + first;
  for (std::size_t c = 0; c < width; ++c)
    y[c] = static_cast<T>(a.mode == GradMode::accumulate ? static_cast<double>(y[c]) + sum[c] : sum[c]);
}

template <class T>
void mark_alive_block(const MarkAlive& a, std::size_t first, std::size_t width) {
  std::uint8_t* alive = a.alive + first;
  for (std::size_t r = 0; r < a.rows; ++r) {
    const T* y = static_cast<const T*>(a.y) + r * a.columns + first;
    for (std::size_t c = 0; c < width; ++c)
      alive[c] = static_cast<std::uint8_t>(alive[c] | !(y[c] <= T(0)));  // true for NaN
  }
}

struct Largest {
  double value;
  std::size_t index;
  bool nan;
};

template <class T>
Largest largest(const T* x, std::size_t n) {
  T best = x[0];
  std::size_t index = 0;
  bool nan = x[0] != x[0];
  for (std::size_t i = 1; i < n; ++i) {
    nan = nan || x[i] != x[i];
    if (x[i] > best) {
      best = x[i];
      index = i;
    }
  }
  return {static_cast<double>(best), index, nan};
}

// One row; returns its loss. With m the largest logit and s = sum exp(x - m): loss = log s - (x[label] - m).
template <class T>
double softmax_row(const T* x, std::size_t n, std::size_t label, double per_row, T* dx, bool& correct) {
  const Largest top = largest(x, n);
  correct = !top.nan && top.index == label;
  const T m = top.nan ? std::numeric_limits<T>::quiet_NaN() : static_cast<T>(top.value);
  // A label out of range is a broken promise of the caller; it shows as a loss that is not a number.
  const double own = label < n ? static_cast<double>(x[label]) - static_cast<double>(m)
                               : std::numeric_limits<double>::quiet_NaN();
  double sum = 0;
  for_each_tile(0, n, [&](std::size_t from, std::size_t to) {
    T exps[kTile];
    for (std::size_t i = from; i < to; ++i) exps[i - from] = Math<T>::exp(x[i] - m);
    for (std::size_t i = from; i < to; ++i) sum += static_cast<double>(exps[i - from]);
    if (dx)
      for (std::size_t i = from; i < to; ++i) dx[i] = exps[i - from];
  });
  if (dx) {
    const T factor = static_cast<T>(per_row / sum);
    const double own_exp = label < n ? static_cast<double>(dx[label]) : 0.0;
    for (std::size_t i = 0; i < n; ++i) dx[i] *= factor;
    if (label < n) dx[label] = static_cast<T>((own_exp / sum - 1.0) * per_row);
  }
  return std::log(sum) - own;
}

template <class T>
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
          softmax_row(static_cast<const T*>(a.logits) + at, a.classes, static_cast<std::size_t>(a.labels[r]),
                      per_row, a.dlogits ? static_cast<T*>(a.dlogits) + at : nullptr, row_correct);
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
  if (a.rows == 0 || a.mode == GradMode::none) return;
  visit_real(a.dtype, [&]<class T>() {
    for_each_column_block(context, a.rows, a.columns, [&](std::size_t first, std::size_t width) {
      column_sum_block<T>(a, first, width);
    });
  });
}

void mark_alive(const Context& context, const MarkAlive& a) {
  visit_real(a.dtype, [&]<class T>() {
    for_each_column_block(context, a.rows, a.columns, [&](std::size_t first, std::size_t width) {
      mark_alive_block<T>(a, first, width);
    });
  });
}

void softmax_cross_entropy(const Context& context, const SoftmaxCrossEntropy& a) {
  require_real(a.dtype);
  if (a.rows == 0 || a.classes == 0) return;
  visit_real(a.dtype, [&]<class T>() { softmax_rows<T>(context, a); });
}

}  // namespace gradflow::kernels::cpu
