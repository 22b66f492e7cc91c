#include "apps/study/pair_claims.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <functional>

#include "apps/report/numbers.h"

namespace gradflow::app {
namespace {

// Images of 32x32x3 of ten synthetic classes, batch norm without affine part, the paper's rate, momentum,
// decay and batch size.
struct Simulated {
  const char* id;
  int step;
  double growth, weight_gradient_ratio, first_weight_norm, loss;
};
constexpr std::array<Simulated, 14> kSimulation = {{
    {"plain-56", 0, 1.190, 838, 5.65, 2.34},
    {"plain-56", 1, 1.091, 15.8, 35, 2.33},
    {"plain-56", 2, 1.048, 1.01, 66, 2.36},
    {"plain-56", 5, 0.999, 0.18, 142, 2.32},
    {"plain-56", 10, 0.984, 0.075, 226, 2.37},
    {"plain-56", 20, 0.982, 0.081, 304, 2.39},
    {"plain-56", 40, 0.973, 0.088, 340, 2.31},
    {"resnet-56", 0, 1.060, 3.9, 5.65, 5.11},
    {"resnet-56", 1, 1.063, 6.4, 5.65, 7.6},
    {"resnet-56", 2, 1.065, 6.4, 5.66, 12.7},
    {"resnet-56", 5, 1.071, 2.7, 5.78, 17.1},
    {"resnet-56", 10, 1.059, 3.0, 7.7, 8.8},
    {"resnet-56", 20, 1.054, 2.7, 14.1, 4.6},
    {"resnet-56", 40, 1.090, 15, 18.7, 5.8},
}};

const Moment* moment_at(const NetworkResult& network, int step) {
  for (const Moment& m : network.moments)
    if (m.step == step) return &m;
  return nullptr;
}

template <class Value>  // of a row
double geometric_mean(std::span<const LayerRow> rows, Value value) {
  double sum = 0;
  for (const LayerRow& row : rows) sum += std::log(std::invoke(value, row));
  return std::exp(sum / static_cast<double>(rows.size()));
}

// "1/2200", "0.44"
std::string part(double x) {
  return x > 0 && x < 0.1 ? fmt::format("1/{}", pretty(round_digits(1 / x, 2), 2)) : pretty(x, 2);
}

bool within(double x, double low, double high) { return x >= low && x <= high; }

PairClaim::Answer answer(bool holds) { return holds ? PairClaim::Answer::holds : PairClaim::Answer::fails; }

// Both networks with their figures, and what the claims ask of them.
struct Both {
  const NetworkResult* plain = nullptr;
  const NetworkResult* residual = nullptr;

  // The last step up to `limit` at which both were measured.
  std::optional<int> last_common_step(int limit) const {
    std::optional<int> last;
    for (const Moment& m : plain->moments)
      if (m.step <= limit && pair_figures(*plain, m.step) && pair_figures(*residual, m.step)) last = m.step;
    return last;
  }
};

PairClaim explodes(const Both& both, const Thresholds& t, const PairRules& r) {
  PairClaim c{.id = "explodes",
              .claim = "The gradient explodes toward the input at step 0 without skips, and not with them"};
  const auto plain = pair_figures(*both.plain, 0), residual = pair_figures(*both.residual, 0);
  const auto plain_then = simulated_figures(*both.plain, 0),
             residual_then = simulated_figures(*both.residual, 0);
  c.expected =
      "Behind batch norm a plain ReLU network multiplies the gradient by √(π/(π−1)) = 1.211 a layer at "
      "infinite width and "
      "batch (Yang et al. 2019); skips turn that into a power of the depth.";
  if (plain_then && residual_then)
    c.expected += fmt::format(" Simulated at He et al.’s own topology and 32×32×3 images: {} and {}.",
                              pretty(plain_then->growth, 4), pretty(residual_then->growth, 4));
  c.rule = fmt::format(
      "growth a layer within {} of the simulation’s in both, and the first convolution’s gradient more than "
      "{:g} times the last one’s without skips, less with them",
      r.growth_band, t.explode_above);
  if (!plain || !residual || !plain_then || !residual_then) return c;
  c.measured = fmt::format(
      "From the last convolution down to the second it grows ×{} a layer without skips and ×{} with them; "
      "what the first gets is {} and {} times what the last gets.",
      pretty(plain->growth, 4), pretty(residual->growth, 4), pretty(plain->gradient_ratio),
      pretty(residual->gradient_ratio));
  c.answer = answer(std::abs(plain->growth - plain_then->growth) <= r.growth_band &&
                    std::abs(residual->growth - residual_then->growth) <= r.growth_band &&
                    plain->gradient_ratio > t.explode_above && residual->gradient_ratio < t.explode_above);
  return c;
}

PairClaim levels(const Both& both, const PairRules& r) {
  PairClaim c{.id = "level",
              .claim = fmt::format("The plain network’s gradient is level by step {}", r.level_by)};
  c.rule = fmt::format(
      "at some measured step from 1 to {}: growth a layer within 1 ± {}, and |∂L/∂W| of the first "
      "convolution within a "
      "factor of {} of the last one’s",
      r.level_by, r.level_growth, r.level_ratio);
  std::string ratios, then;
  bool seen = false, level = false;
  for (const Moment& m : both.plain->moments) {
    const auto f = pair_figures(*both.plain, m.step);
    if (!f || m.step > 5) continue;
    ratios += fmt::format("{}{} at step {} (×{} a layer)", ratios.empty() ? "" : ", ",
                          pretty(f->weight_gradient_ratio), m.step, pretty(f->growth));
    if (const auto s = simulated_figures(*both.plain, m.step))
      then +=
          fmt::format("{}{} at step {}", then.empty() ? "" : ", ", pretty(s->weight_gradient_ratio), m.step);
    if (m.step < 1 || m.step > r.level_by) continue;
    seen = true;
    level = level || (std::abs(f->growth - 1) <= r.level_growth &&
                      within(f->weight_gradient_ratio, 1 / r.level_ratio, r.level_ratio));
  }
  c.expected = fmt::format(
      "A weight behind batch norm has a gradient that is orthogonal to it and shrinks as 1/|W|: one huge "
      "step makes it long "
      "and its gradient small. Simulated |∂W¹|/|∂Wᶜ|: {}. So He et al. 2015 (section 4.1: “healthy "
      "norms”, without "
      "saying when) and Yang et al. 2019 (explosion at initialization) can both be right, at different moments.",
      then);
  if (!seen) return c;
  c.measured = fmt::format("|∂L/∂W| of the first convolution over that of the last: {}.", ratios);
  c.answer = answer(level);
  return c;
}

PairClaim collapse(const Both& both, const PairRules& r) {
  PairClaim c{
      .id = "collapse",
      .claim = "The effective learning rate of the early layers collapses without skips, and not with them"};
  c.rule = fmt::format(
      "at step {} (or the last one measured before it) lr/|W|² of the first quarter of the convolutions, as "
      "geometric mean, is "
      "below {} of its value at step 0 without skips, and not with them",
      r.collapse_at, r.collapse);
  const std::optional<int> step = both.last_common_step(r.collapse_at);
  const auto then = simulated_figures(*both.plain, step.value_or(-1)),
             residual_then = simulated_figures(*both.residual, step.value_or(-1));
  c.expected =
      "Batch norm cancels the length of a weight, so what a step turns it by is governed by lr/|W|².";
  if (then && residual_then)
    c.expected += fmt::format(
        " Simulated: |W¹| grows from 5.65 to {} without skips and to {} with them, which divides the first "
        "layer’s "
        "effective rate by {} and by {}.",
        pretty(then->first_weight_norm), pretty(residual_then->first_weight_norm),
        pretty(round_digits(std::pow(then->first_weight_norm / 5.65, 2), 2), 2),
        pretty(round_digits(std::pow(residual_then->first_weight_norm / 5.65, 2), 2), 2));
  if (!step || *step == 0) return c;
  const auto plain = pair_figures(*both.plain, *step), residual = pair_figures(*both.residual, *step);
  const auto start = pair_figures(*both.plain, 0);
  c.measured = fmt::format(
      "At step {} the first quarter of the convolutions has {} of its effective rate of step 0 without skips "
      "(the last quarter {}), and {} with "
      "them (the last quarter {}). |W¹| went from {} to {} and to {}.",
      *step, part(plain->early_rate), part(plain->late_rate), part(residual->early_rate),
      part(residual->late_rate), start ? pretty(start->first_weight_norm) : "–",
      pretty(plain->first_weight_norm), pretty(residual->first_weight_norm));
  c.answer = answer(plain->early_rate < r.collapse && !(residual->early_rate < r.collapse));
  return c;
}

PairClaim frozen(const Both& both, const Thresholds& t, const PairRules& r) {
  PairClaim c{
      .id = "frozen",
      .claim = "Without skips the early layers stand still behind a gradient whose norm looks healthy"};
  c.expected =
      "A hypothesis for why deep plain networks train badly, not a published result: norms that look "
      "healthy, in layers that hardly turn. The "
      "update ratio does not show it: it holds momentum, which goes on along the first huge step, and weight "
      "decay, which shrinks a weight and "
      "turns nothing.";
  c.rule = fmt::format(
      "at the last step measured: without skips the angle by which the step’s gradient alone turns a weight, "
      "arctan(lr·|∂L/∂W|/|W|), is in the first quarter of the convolutions below {} of that in the last quarter "
      "(geometric means), while the first convolution’s |∂L/∂z| is between {:g} and {:g} times the last one’s; "
      "with skips the angle is not",
      r.frozen, t.vanish_below, t.explode_above);
  const std::optional<int> step = both.last_common_step(INT32_MAX);
  if (!step || *step == 0) return c;
  const auto plain = pair_figures(*both.plain, *step), residual = pair_figures(*both.residual, *step);
  c.measured = fmt::format(
      "At step {} the gradient turns the first quarter of the convolutions by {} radians without skips and "
      "the last quarter by {}; with skips by "
      "{} and {}. |∂L/∂z| of the first convolution is {} of the last one’s without skips, {} with them.",
      *step, pretty(plain->early_turn, 2), pretty(plain->late_turn, 2), pretty(residual->early_turn, 2),
      pretty(residual->late_turn, 2), pretty(plain->gradient_ratio, 2), pretty(residual->gradient_ratio, 2));
  c.answer = answer(plain->early_turn < r.frozen * plain->late_turn &&
                    within(plain->gradient_ratio, t.vanish_below, t.explode_above) &&
                    !(residual->early_turn < r.frozen * residual->late_turn));
  return c;
}

PairClaim learns(const Both& both, const PairResult& pair) {
  PairClaim c{.id = "learns", .claim = "The plain network fits the training data more slowly"};
  c.expected =
      "He et al. 2015: the deeper plain network has the higher training error, the residual one does not. "
      "That is said of the end of "
      "64,000 steps; this run is far from there and says only who is ahead. Held-out images go through batch norm’s running "
      "averages, which lag behind weights that still change fast: so early, their accuracy says little.";
  c.rule =
      "the mean training loss since the point before is higher without skips at the last point of the curve";
  if (both.plain->curve.empty() || both.residual->curve.empty()) return c;
  const CurvePoint &p = both.plain->curve.back(), &q = both.residual->curve.back();
  if (p.step != q.step || !std::isfinite(p.train_loss) || !std::isfinite(q.train_loss)) return c;
  c.measured = fmt::format(
      "Up to step {} the training loss is {} without skips and {} with them; held-out accuracy {} and {} ({} "
      "images).",
      p.step, pretty(p.train_loss), pretty(q.train_loss), percent(both.plain->final_accuracy),
      percent(both.residual->final_accuracy), pair.held_out);
  c.answer = answer(p.train_loss > q.train_loss);
  return c;
}

}  // namespace

double turn(const LayerRow& row) {
  return std::atan(row.effective_rate * row.weight_norm * row.weight_gradient_norm);
}

std::optional<PairFigures> pair_figures(const NetworkResult& network, int step) {
  const Moment* const moment = moment_at(network, step);
  const Moment* const start = moment_at(network, 0);
  if (!moment || !start || moment->layers.size() < 9 || start->layers.size() != moment->layers.size())
    return std::nullopt;
  const std::vector<LayerRow>& rows = moment->layers;
  const std::size_t c = rows.size() - 1, quarter = c / 4;
  const std::span<const LayerRow> all(rows), early = all.first(quarter),
                                             late = all.subspan(c - quarter, quarter);
  const std::span<const LayerRow> then(start->layers);
  PairFigures f;
  f.step = step;
  f.growth = std::pow(rows[1].gradient_norm / rows[c - 1].gradient_norm, 1 / static_cast<double>(c - 2));
  f.gradient_ratio = rows[0].gradient_norm / rows[c - 1].gradient_norm;
  f.weight_gradient_ratio = rows[0].weight_gradient_norm / rows[c - 1].weight_gradient_norm;
  f.first_weight_norm = rows[0].weight_norm;
  f.loss = moment->loss;
  f.early_rate = geometric_mean(early, &LayerRow::effective_rate) /
                 geometric_mean(then.first(quarter), &LayerRow::effective_rate);
  f.late_rate = geometric_mean(late, &LayerRow::effective_rate) /
                geometric_mean(then.subspan(c - quarter, quarter), &LayerRow::effective_rate);
  f.early_turn = geometric_mean(early, turn);
  f.late_turn = geometric_mean(late, turn);
  f.early_update = geometric_mean(early, &LayerRow::update_ratio);
  f.late_update = geometric_mean(late, &LayerRow::update_ratio);
  return f;
}

std::optional<PairFigures> simulated_figures(const NetworkResult& network, int step) {
  for (const Simulated& s : kSimulation)
    if (s.id == network.id && s.step == step)
      return PairFigures{.step = step,
                         .growth = s.growth,
                         .weight_gradient_ratio = s.weight_gradient_ratio,
                         .first_weight_norm = s.first_weight_norm,
                         .loss = s.loss};
  return std::nullopt;
}

std::vector<PairClaim> pair_claims(const PairResult& pair, const Thresholds& t, const PairRules& r) {
  Both both;
  for (const NetworkResult& n : pair.networks) (n.residual ? both.residual : both.plain) = &n;
  if (!both.plain || !both.residual) return {};
  return {explodes(both, t, r), levels(both, r), collapse(both, r), frozen(both, t, r), learns(both, pair)};
}

std::string pair_summary(const PairResult& pair, const std::vector<PairClaim>& claims) {
  if (!pair.why_not.empty()) return fmt::format("Not run: {}.", pair.why_not);
  long holds = 0, open = 0;
  for (const PairClaim& c : claims) {
    holds += c.answer == PairClaim::Answer::holds;
    open += c.answer == PairClaim::Answer::open;
  }
  if (claims.empty()) return "One of the two networks was not measured.";
  std::string text = fmt::format("{} of {} predictions hold in this run", holds, claims.size());
  if (open) text += fmt::format(", {} cannot be judged from it", open);
  return text + ".";
}

}  // namespace gradflow::app
