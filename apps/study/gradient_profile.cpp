#include "apps/study/gradient_profile.h"

#include <algorithm>
#include <cmath>

namespace gradflow::app {
namespace {

// A tensor this small in norm holds little but denormals: the smallest normal f32 is 1.2e-38, and a norm is
// at most sqrt(elements) times the largest element; 1e-30 allows for 1e16 elements.
constexpr double kAboutToUnderflow = 1e-30;
// Denormals are quantized: a layer with more than this fraction of them has no exact norm any more.
constexpr double kMostlyDenormal = 0.05;

bool is_nonfinite(const LayerRow& row) { return row.nonfinite > 0 || std::isinf(row.gradient_norm); }
bool is_measured(const LayerRow& row) { return !std::isnan(row.gradient_norm) || is_nonfinite(row); }

// Rows inside a two-layer residual block are off the stream: the branch's scale shrinks their gradient to any
// size (0 makes it exactly zero) and nothing below suffers. Every row at a block's input has a skip share,
// the last block's output and the head do not; what else has none is inside a block.
bool is_inside_block(const LayerRow& row, bool splits, int last) {
  return splits && row.layer < last - 1 && std::isnan(row.skip_norm) && !is_nonfinite(row);
}

// Slope of log10(value) against the layer, as a factor for one layer DOWN; NaN with fewer than two values.
double factor_down(const std::vector<const LayerRow*>& rows, double LayerRow::*value) {
  double n = 0, mean_x = 0, mean_y = 0;
  for (const LayerRow* row : rows) {
    n += 1;
    mean_x += row->layer;
    mean_y += std::log10(row->*value);
  }
  if (n < 2) return kMissing;
  mean_x /= n;
  mean_y /= n;
  double xx = 0, xy = 0;
  for (const LayerRow* row : rows) {
    xx += (row->layer - mean_x) * (row->layer - mean_x);
    xy += (row->layer - mean_x) * (std::log10(row->*value) - mean_y);
  }
  return std::pow(10.0, -xy / xx);
}

// Rows whose value is a positive number, without the mostly denormal ones unless nothing else is left.
std::vector<const LayerRow*> fit_rows(const std::vector<const LayerRow*>& rows, double LayerRow::*value) {
  std::vector<const LayerRow*> positive, exact;
  for (const LayerRow* row : rows) {
    if (!(row->*value > 0) || !std::isfinite(row->*value) || row->nonfinite > 0) continue;
    positive.push_back(row);
    if (!(row->gradient_denormals > kMostlyDenormal)) exact.push_back(row);
  }
  return exact.size() >= 2 ? exact : positive;
}

void find_zero(const std::vector<const LayerRow*>& rows, GradientProfile& p) {  // rows: lowest layer first
  for (std::size_t i = rows.size(); i-- > 0;) {
    if (rows[i]->gradient_norm != 0) continue;
    p.zero_from = rows[i]->layer;
    if (i + 1 == rows.size()) return;  // nothing set out
    const LayerRow& above = *rows[i + 1];
    p.norm_above_zero = above.gradient_norm;
    p.underflow = above.gradient_denormals > 0 || above.gradient_norm < kAboutToUnderflow;
    return;
  }
}

void compare_inner(const std::vector<const LayerRow*>& inner, GradientProfile& p) {
  if (inner.empty()) return;
  p.inner_top = inner.back()->layer;
  const double reference = inner.back()->gradient_norm;
  if (!(reference > 0) || !std::isfinite(reference)) return;
  for (const LayerRow* row : inner) {
    const double ratio = row->gradient_norm / reference;
    if (!(p.weakest <= ratio)) p.weakest = ratio, p.weakest_layer = row->layer;
    if (!(p.strongest >= ratio)) p.strongest = ratio, p.strongest_layer = row->layer;
  }
}

}  // namespace

GradientProfile read_profile(const Moment& moment) {
  GradientProfile p;
  std::vector<const LayerRow*> rows, finite;
  int last = 0;
  bool splits = false;
  for (const LayerRow& row : moment.layers) {
    last = std::max(last, row.layer);
    splits = splits || std::isfinite(row.skip_norm);
  }
  for (const LayerRow& row : moment.layers) {
    if (!is_measured(row) || is_inside_block(row, splits, last)) continue;
    rows.push_back(&row);
    if (!is_nonfinite(row)) finite.push_back(&row);
  }
  const auto by_layer = [](const LayerRow* a, const LayerRow* b) { return a->layer < b->layer; };
  std::ranges::sort(rows, by_layer);
  std::ranges::sort(finite, by_layer);
  p.measured = static_cast<int>(rows.size());
  if (rows.empty()) return p;
  p.bottom = rows.front()->layer;
  p.top = rows.back()->layer;
  for (const LayerRow* row : rows)
    if (is_nonfinite(*row)) p.nonfinite_from = row->layer;

  std::vector<const LayerRow*> inner;
  for (const LayerRow* row : finite)
    if (row->layer > 1 && row->layer < last) inner.push_back(row);
  if (inner.size() < 2) inner = finite;

  p.end_to_end = rows.front()->gradient_norm / rows.back()->gradient_norm;
  p.predicted_end_to_end = rows.front()->predicted_norm / rows.back()->predicted_norm;
  const auto fit = fit_rows(inner, &LayerRow::gradient_norm);
  p.factor = factor_down(fit, &LayerRow::gradient_norm);
  if (!fit.empty()) p.fit_bottom = fit.front()->layer, p.fit_top = fit.back()->layer;
  // Over the same layers, so that both curves are compared where both are exact.
  p.predicted_factor = factor_down(fit_rows(fit, &LayerRow::predicted_norm), &LayerRow::predicted_norm);
  compare_inner(inner, p);
  find_zero(finite, p);
  return p;
}

}  // namespace gradflow::app
