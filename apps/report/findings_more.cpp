#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "apps/report/findings_parts.h"
#include "apps/report/numbers.h"
#include "apps/report/study_view.h"

namespace gradflow::app {
namespace {

// Measured over predicted factor per layer, minus 1; NaN without a prediction.
double factor_error(const NetworkResult& network) {
  return network.at_init.factor_per_layer / network.at_init.predicted_factor - 1;
}

// Standard deviation of the fitted factor per layer over the draws of this network's weights, as measured: each
// layer adds a variance of 5/(4 width) to the logarithm of the norm (ReLU; after Hanin 2018), and the slope of a
// line through such a walk of n layers has 6/(5n) of it.
double factor_scatter(const NetworkResult& network) {
  const int seeds = network.moments.empty() ? 1 : std::max(1, network.moments.front().seeds);
  return std::sqrt(1.5 / (std::max(1, network.width) * static_cast<double>(std::max(1, network.depth)) * seeds));
}

// Share of the nonzero elements of dL/dz^1 that are smaller than 2^exponent.
double share_below(const LayerRow& row, int exponent) {
  double below = 0;
  double all = 0;
  for (std::size_t i = 0; i < row.exponent_shares.size(); ++i) {
    all += row.exponent_shares[i];
    if (row.first_exponent + static_cast<int>(i) < exponent) below += row.exponent_shares[i];
  }
  return all > 0 ? below / all : 0;
}

}  // namespace

Networks family(const StudyResult& study, bool residual, std::string_view activation, std::string_view norm) {
  return select_networks(study, [&](const NetworkResult& n) {
    return n.residual == residual && n.activation == activation && n.norm == norm && !n.moments.empty() &&
           n.depth >= 2 && n.moments.front().layers.size() == static_cast<std::size_t>(n.depth);
  });
}

Finding about(std::string id, const Networks& networks) {
  Finding finding;
  finding.id = std::move(id);
  for (const NetworkResult* network : networks) {
    finding.networks.push_back(network->id);
    const double error = std::abs(factor_error(*network));
    if (std::isnan(error) || factor_scatter(*network) > kAgreement / 2) continue;
    if (!(error <= kAgreement)) finding.theory = Finding::Theory::differs;
    if (finding.theory == Finding::Theory::silent) finding.theory = Finding::Theory::agrees;
  }
  return finding;
}

std::string short_title(const NetworkResult& network) {
  return display(network.activation) + ", " + display(network.init);
}

std::string measured_list(const Networks& networks) {
  const bool one_activation = std::all_of(networks.begin(), networks.end(), [&](const NetworkResult* n) {
    return n->activation == networks.front()->activation;
  });
  const bool brief = networks.size() > 2;
  std::string text = brief ? "Factor per layer at step 0, measured (predicted): " : "Measured at step 0: ";
  for (const NetworkResult* network : networks) {
    const Verdict& verdict = network->at_init;
    const std::string name = one_activation ? display(network->init) : short_title(*network);
    const std::string predicted =
        std::isnan(verdict.predicted_factor) ? "" : pretty(verdict.predicted_factor);
    text += network == networks.front() ? "" : "; ";
    text += fmt::format("{} ×{}", name, pretty(verdict.factor_per_layer));
    if (brief) {
      text += predicted.empty() ? "" : fmt::format(" ({})", predicted);
    } else {
      text += fmt::format(" a layer{}, {} arrives", predicted.empty() ? "" : " (predicted " + predicted + ")",
                          pretty(verdict.end_to_end) + (verdict.end_to_end > 1 ? " times as much" : ""));
    }
  }
  return text + ".";
}

namespace {

// The networks with the smallest and the largest positive finite value; nulls if there is none.
template <class Value>
std::pair<const NetworkResult*, const NetworkResult*> extremes(const Networks& networks, Value value) {
  const NetworkResult* low = nullptr;
  const NetworkResult* high = nullptr;
  for (const NetworkResult* network : networks) {
    if (network->moments.empty() || !std::isfinite(value(*network)) || !(value(*network) > 0)) continue;
    if (low == nullptr || value(*network) < value(*low)) low = network;
    if (high == nullptr || value(*network) > value(*high)) high = network;
  }
  return {low, high};
}

}  // namespace

std::pair<const NetworkResult*, const NetworkResult*> extremes_at_init(const Networks& networks) {
  return extremes(networks, [](const NetworkResult& n) { return n.at_init.end_to_end; });
}

double block_ratio(const NetworkResult& network) {
  if (network.depth < 3 || network.moments.empty()) return kMissing;
  return gradient_ratio(network.moments.front(), 1, network.depth - 1);
}

std::pair<const NetworkResult*, const NetworkResult*> extremes_over_blocks(const Networks& networks) {
  return extremes(networks, block_ratio);
}

std::optional<Finding> weight_gradients(const StudyResult& study) {
  // The first layer has another fan-in and the head another fan-out, so compare layers 2 and L-1.
  const NetworkResult* net = find_network(study, false, "relu", "xavier", "none");
  if (net == nullptr || net->moments.empty() || net->moments.front().layers.size() < 4) return std::nullopt;
  const std::vector<LayerRow>& rows = net->moments.front().layers;
  const LayerRow& first = rows[1];
  const LayerRow& last = rows[rows.size() - 2];
  const double weights = first.weight_gradient_norm / last.weight_gradient_norm;
  const double signal = first.gradient_norm / last.gradient_norm;
  if (std::isnan(weights) || std::isnan(signal)) return std::nullopt;
  Finding finding;
  finding.id = "weight-gradients";
  finding.networks.push_back(net->id);
  const bool hidden = signal < 0.01 && weights > 100 * signal;
  finding.title = hidden ? "Comparing weight gradients would have hidden the vanishing" : "Weight gradients";
  finding.measured =
      fmt::format("Plain, {}, no norm, layer 2 over layer {} at step 0: {} for ∂L/∂W, {} for ∂L/∂z.",
                  short_title(*net), last.layer, pretty(weights), pretty(signal));
  const NetworkResult* he = find_network(study, false, "relu", "he", "none");
  if (he != nullptr && !he->moments.empty() && he->moments.front().layers.size() == rows.size()) {
    const double other = he->moments.front().layers[1].weight_gradient_norm;
    if (other > 0) {
      finding.measured += fmt::format(" In size |∂L/∂W| of layer 2 is {}, with He {}.",
                                      pretty(first.weight_gradient_norm), pretty(other));
    }
  }

  finding.why =
      "A weight gradient is gradient × signal. With ReLU (or no activation) the signal changes on the way up "
      "at the same rate as the gradient on the way down, so the product has the same size in every layer and "
      "its ratio says nothing. What shows it: ∂L/∂z, and the absolute size of ∂L/∂W, small in all layers "
      "alike.";
  return finding;
}

std::optional<Finding> learning(const StudyResult& study) {
  if (std::none_of(study.networks.begin(), study.networks.end(),
                   [](const NetworkResult& n) { return std::isfinite(n.final_accuracy); })) {
    return std::nullopt;
  }
  Finding finding;
  finding.id = "learning";
  struct Group {
    VerdictKind kind;
    const char* words;
    long total = 0, good = 0;
  };
  Group groups[] = {{VerdictKind::healthy, "stayed within bounds"},
                    {VerdictKind::vanishes, "vanished"},
                    {VerdictKind::explodes, "exploded"},
                    {VerdictKind::dead, "was dead"}};
  const Networks trained = select_networks(study, was_trained);
  if (trained.size() < 2) return std::nullopt;  // one run is no comparison
  for (const NetworkResult* network : trained) {
    for (Group& group : groups) {
      if (network->at_init.kind != group.kind) continue;
      ++group.total;
      group.good += learns(study, *network);
    }
    finding.networks.push_back(network->id);
  }
  for (const Group& group : groups) {
    if (group.total == 0) continue;
    finding.measured += fmt::format("{} of the {} network{} whose gradient {} at step 0 learn{}. ",
                                    group.good == 0 ? "None" : fmt::format("{}", group.good), group.total,
                                    group.total == 1 ? "" : "s", group.words, group.good == 1 ? "s" : "");
  }
  if (finding.measured.empty()) return std::nullopt;
  finding.measured += fmt::format(
      "To learn means to reach at least {} after {} steps: chance is {}, and {} of what the shallow network "
      "gains on it is asked for.",
      percent(learning_bar(study)), study.steps, percent(chance(study)),
      percent(study.thresholds.learn_fraction, 0));
  const bool insufficient = groups[0].good < groups[0].total;
  const bool survivable = groups[1].good + groups[2].good > 0;
  finding.title = insufficient && survivable
                      ? "The norm at step 0 is not the whole story, in either direction"
                  : insufficient ? "A gradient that arrives is not yet a network that learns"
                  : survivable   ? "Some networks learn in spite of a bad start"
                                 : "Here the gradient at step 0 decided what could be learned";
  finding.why =
      "A norm says that something arrives, not that it points anywhere useful: with depth the gradients of "
      "different samples can lose their correlation (Balduzzi et al. 2017), samples can become "
      "indistinguishable on the way up, and one learning rate cannot suit layers whose gradients differ by "
      "orders of magnitude. The first steps also change the factors. So the verdict after training is "
      "separate, and taken against the shallow network under the same recipe.";
  return finding;
}

std::optional<Finding> predictions(const StudyResult& study) {
  const Networks nets =
      select_networks(study, [](const NetworkResult& n) { return !std::isnan(factor_error(n)); });
  if (nets.empty()) return std::nullopt;
  Finding finding = about("predictions", nets);
  const NetworkResult* worst = *std::max_element(nets.begin(), nets.end(), [](const auto* a, const auto* b) {
    return std::abs(factor_error(*a)) < std::abs(factor_error(*b));
  });
  const long good = std::count_if(nets.begin(), nets.end(), [](const NetworkResult* n) {
    return std::abs(factor_error(*n)) <= kAgreement;
  });
  finding.title = nets.size() == 1
                      ? fmt::format("Theory predicts ×{} a layer, ×{} was measured",
                                    pretty(worst->at_init.predicted_factor), pretty(worst->at_init.factor_per_layer))
                      : fmt::format("Theory predicts the factor per layer of {} of {} networks within {}", good,
                                    nets.size(), percent(kAgreement, 0));
  finding.measured = fmt::format(
      "Largest difference: {} network, {}: ×{} a layer measured, {} predicted; over the whole depth {} "
      "against {}. ({} a layer would add up to a factor of {} over {} layers.)",
      worst->residual ? "residual" : "plain", factors_title(*worst),
      pretty(worst->at_init.factor_per_layer, 4), pretty(worst->at_init.predicted_factor, 4),
      pretty(worst->at_init.end_to_end), pretty(worst->at_init.predicted_end_to_end), percent(kAgreement, 0),
      pretty(std::pow(1 + kAgreement, worst->depth - 1), 2), worst->depth);
  const double spread = std::exp(std::sqrt(5.0 * worst->depth / std::max(1, worst->width)) / 2);
  const int seeds = worst->moments.empty() ? study.init_seeds : worst->moments.front().seeds;
  finding.why = fmt::format(
      "The prediction is for infinitely wide layers with weights just drawn. At width {} and depth {} one "
      "ReLU network’s end-to-end norm scatters around it by a factor of about {:.1f} either way (after Hanin "
      "2018); {}. After step 0 the weights are no longer random, and there is no prediction.",
      worst->width, worst->depth, spread,
      seeds == 1 ? "here there is one initialization"
                 : fmt::format("the curves here average {} initializations", seeds));
  return finding;
}

std::optional<Finding> precision(const StudyResult& study) {
  Finding finding;
  finding.id = "precision";
  long half = 0;
  long total = 0;
  std::string zeros;
  for (const NetworkResult* network : select_networks(study, [](const NetworkResult& n) {
         return !n.moments.empty() && !n.moments.front().layers.empty();
       })) {
    const LayerRow& first = network->moments.front().layers.front();
    if (first.exponent_shares.empty()) continue;
    ++total;
    if (share_below(first, -25) > 0.5) {
      ++half;
      finding.networks.push_back(network->id);
    }
    if (first.gradient_denormals > 0.01) {
      zeros += fmt::format("{}{} of the elements in the {} network ({})", zeros.empty() ? "" : ", ",
                           percent(first.gradient_denormals), network->residual ? "residual" : "plain",
                           factors_title(*network));
    }
  }
  if (total == 0) return std::nullopt;
  finding.title =
      half > 0
          ? fmt::format("In fp16, {} of {} networks would lose most of the gradient at layer 1 to rounding",
                        half, total)
          : "Even in fp16, no network would lose most of the gradient at layer 1 to rounding";
  finding.measured = fmt::format(
      "Counted from the exponents of ∂L/∂z at layer 1, step 0: more than half of the nonzero elements are "
      "below 2⁻²⁵ in {} networks.",
      half);
  if (!zeros.empty()) finding.measured += " Already below the normal numbers of fp32: " + zeros + ".";
  finding.why =
      "Rounding to nearest gives exactly zero below half of the smallest subnormal: 2⁻²⁵ in fp16, 2⁻¹³⁴ in "
      "bf16, 2⁻¹⁵⁰ in fp32. Loss scaling moves all exponents by one constant; it cannot help where layers "
      "differ by more than the format spans. Updates are lost much earlier: when they are smaller than about 2⁻¹¹ "
      "(fp16), 2⁻⁸ (bf16) or 2⁻²⁴ (fp32) of the weight.";
  return finding;
}

}  // namespace gradflow::app
