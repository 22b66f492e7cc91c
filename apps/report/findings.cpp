#include "apps/report/findings.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "apps/report/findings_parts.h"
#include "apps/report/numbers.h"
#include "apps/report/study_view.h"

namespace gradflow::app {
namespace {

bool all(const Networks& networks, VerdictKind kind) {
  return std::all_of(networks.begin(), networks.end(),
                     [&](const NetworkResult* n) { return n->at_init.kind == kind; });
}

bool between(double value, double low, double high) { return value >= low && value <= high; }

std::optional<Finding> sigmoid(const StudyResult& study) {
  const Networks nets = family(study, false, "sigmoid", "none");
  if (nets.empty()) return std::nullopt;
  Finding finding = about("sigmoid", nets);
  finding.title = all(nets, VerdictKind::vanishes)
                      ? "Sigmoid loses the gradient, whichever of the usual initializations it gets"
                      : "Sigmoid without skips and without batch norm";
  finding.measured = measured_list(nets);
  std::string means;
  for (const NetworkResult* network : nets) {
    const LayerRow& middle = network->moments.front().layers[network->depth / 2];
    if (std::isnan(middle.activation_mean)) continue;
    means += fmt::format("{}{} ± {} ({})", means.empty() ? "" : ", ", pretty(middle.activation_mean, 2),
                         pretty(middle.activation_std, 2), display(network->init));
  }
  if (!means.empty())
    finding.measured += " The activations themselves do not fade: half-way up they are " + means + ".";
  finding.why =
      "What one layer does to the gradient’s norm is √χ, with χ = σ_w²·E[φ′(z)²] and σ_w² = fan-in × weight "
      "variance. The slope of the sigmoid is at most 1/4, so √χ is at most 0.25 at σ_w² = 1 (Xavier) and "
      "0.35 at σ_w² = 2 (He). It is the flat slope, not the squashing of values into [0, 1], that loses the "
      "gradient.";
  return finding;
}

std::optional<Finding> relu(const StudyResult& study) {
  const Networks nets = family(study, false, "relu", "none");
  if (nets.empty()) return std::nullopt;
  Finding finding = about("relu", nets);
  const NetworkResult* xavier = find_network(study, false, "relu", "xavier", "none");
  const NetworkResult* he = find_network(study, false, "relu", "he", "none");
  const bool shown = xavier && he && xavier->at_init.factor_per_layer < 0.8 &&
                     between(he->at_init.factor_per_layer, 0.95, 1.05);
  finding.title = shown ? "ReLU does not cure vanishing by itself: the doubled variance of He does"
                        : "ReLU without skips and without batch norm";
  finding.measured = measured_list(nets);
  finding.why =
      "ReLU blocks half of the units, so χ = σ_w²/2: a factor of √½ = 0.707 a layer at σ_w² = 1 and exactly "
      "1 at σ_w² = 2. Many small weights are no harm as such: the sum over the fan-in is part of the factor.";
  return finding;
}

std::optional<Finding> tanh(const StudyResult& study) {
  const Networks nets = family(study, false, "tanh", "none");
  if (nets.empty()) return std::nullopt;
  Finding finding = about("tanh", nets);
  const NetworkResult* xavier = find_network(study, false, "tanh", "xavier", "none");
  const NetworkResult* he = find_network(study, false, "tanh", "he", "none");
  const bool shown = xavier && he && between(xavier->at_init.end_to_end, study.thresholds.vanish_below, 1) &&
                     he->at_init.end_to_end > 1;
  finding.title = shown ? "Tanh fades only slowly with Xavier, and grows with He"
                        : "Tanh without skips and without batch norm";
  finding.measured = measured_list(nets);
  finding.why =
      "At σ_w² = 1 tanh sits on the border between vanishing and exploding: the signal settles toward 0, "
      "where the slope is 1, χ tends to 1 and the gradient falls like a power of the depth (about 1/√L) "
      "instead of exponentially. At σ_w² = 2 the signal settles where χ = 1.106: after the first layers the "
      "norm grows by 1.051 a layer.";
  return finding;
}

std::optional<Finding> skip(const StudyResult& study) {
  const Networks nets =
      select_networks(study, [](const NetworkResult& n) { return n.residual && n.norm == "none"; });
  if (nets.empty()) return std::nullopt;
  Finding finding = about("skip", nets);
  const auto [low, high] = extremes_at_init(nets);
  const bool none_vanish = low && low->at_init.end_to_end >= study.thresholds.vanish_below;
  const bool grows = high && high->at_init.end_to_end > 10;
  finding.title = none_vanish && grows
                      ? "A skip stops the vanishing; without normalization the gradient grows instead"
                  : none_vanish ? "With a skip the gradient does not vanish"
                                : "Skips without batch norm";
  if (const auto [least, most] = extremes_over_blocks(nets); least != nullptr) {
    finding.measured = fmt::format(
        "Over the blocks alone, from layer {} down to 1, the norm is multiplied by {} ({}) to {} ({}) at "
        "step 0; with stem and head by "
        "{} to {}.",
        least->depth - 1, pretty(block_ratio(*least)), short_title(*least), pretty(block_ratio(*most)),
        short_title(*most), pretty(low->at_init.end_to_end), pretty(high->at_init.end_to_end));
  }
  std::string diverged;
  for (const NetworkResult* network : nets) {
    if (!network->diverged_at) continue;
    diverged += fmt::format("{}{} at step {}", diverged.empty() ? "" : "; ", short_title(*network),
                            *network->diverged_at);
  }
  if (!diverged.empty()) finding.measured += " Diverged in training: " + diverged + ".";
  finding.why =
      "A block x + f(x) hands the gradient down unchanged by the skip and adds what comes by the branch: its "
      "squared norm is multiplied by 1 + χ on average, never by less than 1, and the signal grows on the way "
      "up as well. Sigmoid’s branch carries so little (χ ≤ σ_w²/16) that skip and sigmoid change the norm by "
      "little per block; with ReLU and He its square doubles in every block. What bounds it: batch norm on "
      "the branch, a branch scaled by 1/√L, or one that starts at 0 (Fixup, SkipInit). The stem and the head "
      "have no skip and keep their own factors.";
  return finding;
}

std::optional<Finding> plain_batch_norm(const StudyResult& study) {
  const Networks nets =
      select_networks(study, [](const NetworkResult& n) { return !n.residual && n.norm == "bn"; });
  const NetworkResult* top = extremes_at_init(nets).second;
  if (top == nullptr) return std::nullopt;
  Finding finding = about("batch-norm", nets);
  const Moment& end = top->moments.back();
  const double start_ratio = top->at_init.end_to_end;
  const double end_ratio = end_to_end_ratio(end);
  constexpr double kGrown = 10;
  const bool grows = start_ratio > kGrown;
  const auto gone = std::find_if(top->moments.begin(), top->moments.end(), [&](const Moment& moment) {
    return moment.step > 0 && end_to_end_ratio(moment) < kGrown;
  });
  const bool undone = grows && gone != top->moments.end() && end_ratio < kGrown;
  finding.title =
      undone ? fmt::format(
                   "Batch norm without skips: the gradient grows backward at step 0; by step {} that is gone",
                   gone->step)
      : grows ? "Batch norm without skips: the gradient grows backward at step 0"
              : "Batch norm without skips";
  finding.measured = measured_list(nets);
  const NetworkResult* level = *std::min_element(nets.begin(), nets.end(), [](const auto* a, const auto* b) {
    return std::abs(std::log(a->at_init.end_to_end)) < std::abs(std::log(b->at_init.end_to_end));
  });
  finding.measured += fmt::format(" Nearest to level from end to end: {} (ratio {}).", short_title(*level),
                                  pretty(level->at_init.end_to_end));
  if (top->moments.size() > 1) {
    finding.measured += fmt::format(" {} in training, layer 1 over layer {}:", short_title(*top), top->depth);
    std::size_t shown = 0;
    for (const Moment& moment : top->moments) {
      if (shown++ > 5 && &moment != &end) continue;
      finding.measured += fmt::format("{} {} at step {}", shown == 1 ? "" : ",",
                                      pretty(end_to_end_ratio(moment)), moment.step);
    }
    finding.measured += undone && end_ratio < 0.1 ? ": the growth has turned into a loss." : ".";
  }
  finding.why =
      "The activation narrows the spread, batch norm brings it back to 1, so each layer multiplies the squared "
      "gradient by E[φ′²]/Var φ ≥ 1: π/(π−1) = 1.467 for ReLU, that is 1.211 in norm, whatever the variance "
      "of the weights (Yang et al. 2019). Gradients of normalized layers scale as 1/|W|: one large step "
      "makes early weights longer and their gradients smaller. A level norm later is therefore no proof that "
      "the early layers still learn: compare how far a step moves them with what weight decay alone would do.";
  return finding;
}

std::optional<Finding> residual_batch_norm(const StudyResult& study) {
  const Networks nets =
      select_networks(study, [](const NetworkResult& n) { return n.residual && n.norm == "bn"; });
  const NetworkResult* high = extremes_at_init(nets).second;
  if (high == nullptr) return std::nullopt;
  Finding finding = about("skip-batch-norm", nets);
  const Moment& start = high->moments.front();
  const int quarter = std::max(1, high->depth / 4);
  const double near_input = std::pow(gradient_ratio(start, 2, 2 + quarter), 1.0 / quarter);
  const double near_head =
      std::pow(gradient_ratio(start, high->depth - 1 - quarter, high->depth - 1), 1.0 / quarter);
  const bool slows = near_input > near_head;
  finding.title = slows && all(nets, VerdictKind::healthy)
                      ? "Skip and batch norm together keep the gradient within bounds"
                      : "Skips with batch norm on the branch";
  const auto [least, most] = extremes_over_blocks(nets);
  if (least == nullptr) return std::nullopt;
  finding.measured = fmt::format(
      "Over the blocks alone, from layer {} down to 1, the norm is multiplied by {} ({}) to {} ({}) at step "
      "0. In {} it grows by {} a "
      "block near the input and by {} near the head.",
      least->depth - 1, pretty(block_ratio(*least)), short_title(*least), pretty(block_ratio(*most)),
      short_title(*most), short_title(*high), pretty(near_input), pretty(near_head));
  finding.why =
      "The branch is brought to a fixed size while the stream grows from block to block, so block l adds "
      "only about 1/l of what is there: the gradient grows like a power of the depth, not exponentially (De "
      "& Smith 2020). Each block comes closer to preserving the norm the deeper it sits; the product over "
      "all blocks still grows.";
  return finding;
}

}  // namespace

std::vector<Finding> findings(const StudyResult& study) {
  std::vector<Finding> found;
  // Of weights that came from a file only what was counted can be said: the rest is about random ones.
  const auto loaded = [](const NetworkResult& n) { return n.init == kLoadedWeights; };
  if (std::ranges::any_of(study.networks, loaded)) {
    if (std::optional<Finding> finding = precision(study)) found.push_back(std::move(*finding));
    return found;
  }
  for (const auto make : {sigmoid, tanh, relu, skip, plain_batch_norm, residual_batch_norm, weight_gradients,
                          learning, predictions, precision}) {
    if (std::optional<Finding> finding = make(study)) found.push_back(std::move(*finding));
  }
  return found;
}

}  // namespace gradflow::app
