#include "apps/study/verdict.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "apps/report/numbers.h"
#include "apps/study/gradient_profile.h"

namespace gradflow::app {
namespace {

// Quotients of rounded numbers: a ratio this close to a threshold is at it, and at it is not beyond.
constexpr double kRounding = 1e-12;

bool below(double value, double threshold) { return value < threshold * (1 - kRounding); }
bool above(double value, double threshold) { return value > threshold * (1 + kRounding); }
bool reaches(double value, double threshold) { return value >= threshold - kRounding; }

std::string_view headline_of(VerdictKind kind) {
  switch (kind) {
    case VerdictKind::vanishes: return "vanishes";
    case VerdictKind::explodes: return "explodes";
    case VerdictKind::healthy: return "healthy";
    case VerdictKind::dead: return "dead";
    case VerdictKind::does_not_learn: return "does not learn";
    case VerdictKind::diverged: return "diverged";
    case VerdictKind::not_measured: return "not measured";
  }
  return "not measured";
}

void set(Verdict& verdict, VerdictKind kind, std::string evidence) {
  verdict.kind = kind;
  verdict.headline = headline_of(kind);
  verdict.evidence = std::move(evidence);
}

void append(std::string& text, const std::string& more) {
  if (more.empty()) return;
  if (!text.empty()) text += "; ";
  text += more;
}

// ---------------------------------------------------------------------------- sentences about a gradient
// "the gradient shrinks by 0.236× a layer from layer 49 to 2 (layer 1 gets 1.7·10⁻³¹ of what layer 50 gets)".
// Two spans, each with its number: the fit leaves out stem and head, and with them a network whose factor is
// above 1 may still get less at layer 1 than it has at layer L.
std::string course(const GradientProfile& p) {
  const std::string factor = pretty(p.factor);
  std::string text;
  if (std::isnan(p.factor))
    text = fmt::format("the gradient goes from layer {} to {}", p.top, p.bottom);
  else if (factor == "1.00")
    text = fmt::format("the gradient stays level, {}× a layer from layer {} to {}", factor, p.fit_top, p.fit_bottom);
  else
    text = fmt::format("the gradient {} by {}× a layer from layer {} to {}",
                       p.factor < 1 ? "shrinks" : "grows", factor, p.fit_top, p.fit_bottom);
  if (std::isnan(p.end_to_end)) return text;
  return text + fmt::format(" (layer {} gets {}{} what layer {} gets)", p.bottom, pretty(p.end_to_end),
                            p.end_to_end > 1 ? " times" : " of", p.top);
}

std::string prediction(const GradientProfile& p) {
  if (std::isnan(p.predicted_factor)) return "";
  if (std::isnan(p.predicted_end_to_end)) return fmt::format("predicted {}", pretty(p.predicted_factor));
  return fmt::format("predicted {} a layer, {} in all", pretty(p.predicted_factor),
                     pretty(p.predicted_end_to_end));
}

// Names the layer that decides where it is not the lowest inner one: a dip or a bump.
std::string extreme(const GradientProfile& p, bool weakest) {
  const int layer = weakest ? p.weakest_layer : p.strongest_layer;
  if (layer <= p.bottom + 1) return "";
  return fmt::format("{} at layer {}, {} of what layer {} gets", weakest ? "weakest" : "strongest", layer,
                     pretty(weakest ? p.weakest : p.strongest), p.inner_top);
}

// ------------------------------------------------------------------------------- sentences about units
struct Worst {
  int layer = 0;
  double fraction = kMissing;
};

Worst worst(const Moment& moment, double LayerRow::*value) {
  Worst w;
  for (const LayerRow& row : moment.layers)
    if (row.*value > w.fraction || (std::isnan(w.fraction) && !std::isnan(row.*value)))
      w = {row.layer, row.*value};
  return w;
}

std::string unit_state(const Moment& moment) {
  std::string text;
  const Worst saturated = worst(moment, &LayerRow::saturated), dead = worst(moment, &LayerRow::dead);
  if (saturated.fraction > 0)
    append(text, fmt::format("up to {} of the outputs saturated (layer {})", percent(saturated.fraction),
                             saturated.layer));
  if (dead.fraction > 0)
    append(text, fmt::format("up to {} of the units dark on every sample (layer {})", percent(dead.fraction),
                             dead.layer));
  return text;
}

double median(std::vector<double> v) {
  const auto middle = v.begin() + static_cast<std::ptrdiff_t>(v.size() / 2);
  std::ranges::nth_element(v, middle);
  return *middle;
}

// Weights that move by 1e-6 of themselves a step stay where they were put, however healthy their gradient
// looks: behind batch norm the gradient shrinks as 1/|W|. What weight decay alone would make stands beside it:
// a layer that moves by no more than that learns nothing.
std::string motion(const Moment& moment, double decay_step) {
  std::vector<const LayerRow*> rows;
  for (const LayerRow& row : moment.layers)
    if (std::isfinite(row.update_ratio)) rows.push_back(&row);
  if (rows.size() < 2) return "";
  const std::size_t part = std::max<std::size_t>(1, rows.size() / 5);
  std::vector<double> first, last;
  for (std::size_t i = 0; i < part; ++i) {
    first.push_back(rows[i]->update_ratio);
    last.push_back(rows[rows.size() - 1 - i]->update_ratio);
  }
  const auto range = [](int a, int b) {
    return a == b ? fmt::format("layer {}", a) : fmt::format("layers {}–{}", a, b);
  };
  std::string text = fmt::format("a step moves the weights of {} by {} of their length, of {} by {}",
                                 range(rows.front()->layer, rows[part - 1]->layer), pretty(median(first)),
                                 range(rows[rows.size() - part]->layer, rows.back()->layer), pretty(median(last)));
  if (decay_step > 0) text += fmt::format(" (weight decay alone: {})", pretty(decay_step, 2));
  return text;
}

// ----------------------------------------------------------------------------------------- the gradient
std::string nonfinite_evidence(const GradientProfile& p, const Moment& moment) {
  for (const LayerRow& row : moment.layers)  // lowest first: the forward pass meets it there
    if (std::isinf(row.z_rms))
      return fmt::format("the forward signal leaves the range of its numbers at layer {}", row.layer);
  return fmt::format("the gradient is no longer finite already at layer {}, where it sets out", p.top);
}

std::string dead_evidence(const GradientProfile& p, const Moment& moment) {
  const int layer = *p.zero_from;
  std::string text =
      fmt::format("the gradient is cut to exactly zero at layer {}, though {} arrives at layer {}", layer,
                  pretty(p.norm_above_zero), layer + 1);
  for (const LayerRow& row : moment.layers)
    if (row.layer == layer && row.dead > 0)
      append(text, fmt::format("{} of its units fire on no sample", percent(row.dead)));
  return text;
}

// Dead units are not judged here: whether they matter depends on what else is known.
Verdict judge_gradient(const Moment& moment, const Thresholds& t, const GradientProfile& p) {
  Verdict v;
  v.factor_per_layer = p.factor;
  v.end_to_end = p.end_to_end;
  v.predicted_factor = p.predicted_factor;
  v.predicted_end_to_end = p.predicted_end_to_end;
  const auto with_prediction = [&p](std::string text) {
    append(text, prediction(p));
    return text;
  };
  if (p.measured < 2) {
    set(v, VerdictKind::not_measured,
        fmt::format("the gradient was measured at {} layers, two are needed", p.measured));
  } else if (p.nonfinite_from == p.top) {
    set(v, VerdictKind::diverged, nonfinite_evidence(p, moment));
  } else if (p.nonfinite_from) {
    set(v, VerdictKind::explodes,
        with_prediction(
            fmt::format("the gradient grows by {}× a layer from layer {} and overflows at layer {}",
                        pretty(p.factor), p.top, *p.nonfinite_from)));
  } else if (p.zero_from == p.top) {
    set(v, VerdictKind::dead,
        fmt::format("no gradient leaves the loss: it is exactly zero at layer {}", p.top));
  } else if (p.zero_from && p.underflow) {
    set(v, VerdictKind::vanishes,
        with_prediction(
            fmt::format("the gradient shrinks by {}× a layer from layer {} and underflows to exact zero at "
                        "layer {}: nothing arrives below",
                        pretty(p.factor), p.top, *p.zero_from)));
  } else if (p.zero_from) {
    set(v, VerdictKind::dead, dead_evidence(p, moment));
  } else if (std::isnan(p.weakest)) {
    set(v, VerdictKind::not_measured, "the gradient of no two inner layers can be compared");
  } else {
    const bool vanishes = below(p.weakest, t.vanish_below), explodes = above(p.strongest, t.explode_above);
    std::string text = course(p);
    if (vanishes && (!explodes || p.weakest * p.strongest < 1)) {
      append(text, extreme(p, true));
      set(v, VerdictKind::vanishes, with_prediction(text));
    } else if (explodes) {
      append(text, extreme(p, false));
      set(v, VerdictKind::explodes, with_prediction(text));
    } else {
      set(v, VerdictKind::healthy, with_prediction(text));
    }
  }
  return v;
}

std::string dead_units(const Worst& dead) {
  return fmt::format("{} of the units of layer {} fire on no sample seen", percent(dead.fraction),
                     dead.layer);
}

// -------------------------------------------------------------------------------------------- learning
double accuracy_of(const NetworkResult& network) {
  if (std::isfinite(network.final_accuracy)) return network.final_accuracy;
  for (auto point = network.curve.rbegin(); point != network.curve.rend(); ++point)
    if (std::isfinite(point->test_accuracy)) return point->test_accuracy;
  return kMissing;
}

struct Learning {
  double accuracy = kMissing, needed = kMissing, chance = 0, reference = 1;
  bool against_yardstick = false;
  bool known() const { return std::isfinite(accuracy); }
  bool learns() const { return reaches(accuracy, needed); }
};

Learning learning_of(const NetworkResult& network, const NetworkResult* yardstick, const Thresholds& t,
                     int classes) {
  Learning l;
  l.accuracy = accuracy_of(network);
  l.chance = 1.0 / std::max(classes, 1);
  if (yardstick && yardstick != &network && !network.yardstick) {
    const double reached = accuracy_of(*yardstick);
    if (reached > l.chance) {
      l.reference = reached;
      l.against_yardstick = true;
    }
  }
  l.needed = l.chance + t.learn_fraction * (l.reference - l.chance);
  return l;
}

std::string learning_text(const Learning& l) {
  if (!l.known()) return "held-out accuracy was not measured";
  return fmt::format("held-out accuracy {} (learning needs {}{})", percent(l.accuracy), percent(l.needed),
                     l.against_yardstick ? "" : ", measured against " + percent(l.reference, 0));
}

}  // namespace

Verdict judge_at_init(const NetworkResult& network, const Thresholds& thresholds) {
  Verdict v;
  if (network.moments.empty()) {
    set(v, VerdictKind::not_measured, "no measurement was taken");
    return v;
  }
  const Moment& moment = network.moments.front();
  v = judge_gradient(moment, thresholds, read_profile(moment));
  const Worst dead = worst(moment, &LayerRow::dead);
  if (v.kind == VerdictKind::healthy && reaches(dead.fraction, thresholds.dead_fraction))
    set(v, VerdictKind::dead, dead_units(dead) + "; " + v.evidence);
  return v;
}

Verdict judge_trained(const NetworkResult& network, const NetworkResult* yardstick,
                      const Thresholds& thresholds, int classes, double decay_step) {
  Verdict v;
  GradientProfile profile;
  if (!network.moments.empty()) {
    // Predictions hold at initialization only.
    profile = read_profile(network.moments.back());
    profile.predicted_factor = profile.predicted_end_to_end = kMissing;
    v = judge_gradient(network.moments.back(), thresholds, profile);
  }
  if (network.diverged_at) {
    std::string text = fmt::format("the loss is not finite from step {} on", *network.diverged_at);
    if (!network.diverged_where.empty()) text += ", first seen in " + network.diverged_where;
    set(v, VerdictKind::diverged, text);
    return v;
  }
  if (network.moments.empty()) {
    set(v, VerdictKind::not_measured, "no measurement was taken");
    return v;
  }
  const Moment& moment = network.moments.back();
  const Learning learning = learning_of(network, yardstick, thresholds, classes);
  const bool learns = learning.known() && learning.learns();
  const Worst dead = worst(moment, &LayerRow::dead);
  std::string details;
  append(details, learning_text(learning));
  append(details, motion(moment, decay_step));
  append(details, unit_state(moment));

  switch (v.kind) {
    case VerdictKind::not_measured:
    case VerdictKind::diverged: return v;
    case VerdictKind::vanishes:
    case VerdictKind::explodes:
      if (learns) v.headline += ", yet learns";
      break;
    case VerdictKind::dead:
      if (learns && profile.zero_from == profile.top)
        set(v, VerdictKind::healthy,
            "the loss sends no gradient any more: every sample of the batch is certain");
      else if (learns)
        v.headline += ", yet learns";
      break;
    default:
      if (learns) break;
      if (reaches(dead.fraction, thresholds.dead_fraction))
        set(v, VerdictKind::dead, dead_units(dead));
      else if (learning.known())
        set(v, VerdictKind::does_not_learn, v.evidence);
  }
  append(v.evidence, details);
  return v;
}

std::string describe(const Thresholds& t) {
  return fmt::format(
      "Compared are the gradients at the pre-activations, |dL/dz|, of layers 2 to L-1 (of all layers where "
      "that "
      "leaves fewer than two). Vanishes: one of them gets less than {:g} of what layer L-1 gets, or "
      "underflows to "
      "exact zero. Explodes: one gets more than {:g} times as much, or overflows. Dead: the gradient is cut "
      "to exactly "
      "zero, or at least {:g} of the units of a layer fire on no sample seen and the network does not learn. "
      "Learns: "
      "held-out accuracy makes at least {:g} of the way from chance to the shallow network's (to 100% where "
      "there is "
      "none above chance). Diverged: the loss, or the gradient where it sets out, is not finite. Healthy: none "
      "of these, and, once trained, learns. The factor per layer is a straight-line fit to log10 |dL/dz| over "
      "the same layers; what layer 1 gets of layer L's gradient includes the steps at the stem and the head.",
      t.vanish_below, t.explode_above, t.dead_fraction, t.learn_fraction);
}

}  // namespace gradflow::app
