#include "apps/report/study_view.h"

#include <algorithm>
#include <cmath>

#include "apps/report/columns.h"

namespace gradflow::app {

const NetworkResult* find_network(const StudyResult& study, bool residual, std::string_view activation,
                                  std::string_view init, std::string_view norm) {
  const auto found = select_networks(study, [&](const NetworkResult& n) {
    return n.residual == residual && n.activation == activation && n.init == init && n.norm == norm;
  });
  return found.empty() ? nullptr : found.front();
}

const NetworkResult* yardstick(const StudyResult& study) {
  for (const NetworkResult& network : study.networks) {
    if (network.yardstick) return &network;
  }
  return nullptr;
}

double gradient_ratio(const Moment& moment, int lower, int upper) {
  const int count = static_cast<int>(moment.layers.size());
  if (lower < 1 || upper < 1 || lower > count || upper > count) return kMissing;
  return moment.layers[lower - 1].gradient_norm / moment.layers[upper - 1].gradient_norm;
}

double end_to_end_ratio(const Moment& moment) {
  return gradient_ratio(moment, 1, static_cast<int>(moment.layers.size()));
}

double chance(const StudyResult& study) { return 1.0 / std::max(1, study.classes); }

double learning_bar(const StudyResult& study) {
  const NetworkResult* shallow = yardstick(study);
  const double reached = shallow == nullptr ? kMissing : shallow->final_accuracy;
  const double reference = reached > chance(study) ? reached : 1.0;
  return chance(study) + study.thresholds.learn_fraction * (reference - chance(study));
}

bool learns(const StudyResult& study, const NetworkResult& network) {
  return network.final_accuracy >= learning_bar(study);
}

double shown_accuracy(const NetworkResult& network) {
  return network.diverged_at ? kMissing : network.final_accuracy;
}

bool was_trained(const NetworkResult& network) {
  return std::isfinite(network.final_accuracy) || network.diverged_at.has_value();
}

std::string display(std::string_view level) {
  if (level == "relu") return "ReLU";
  if (level == "xavier") return "Xavier";
  if (level == "he") return "He";
  if (level == "lecun") return "LeCun";
  if (level == "none") return "no norm";
  if (level == "bn") return "batch norm";
  return std::string(level);
}

std::string factors_title(const NetworkResult& network) {
  return display(network.activation) + ", " + display(network.init) + ", " + display(network.norm);
}

std::string verdict_words(VerdictKind kind) {
  std::string words(verdict_name(kind));
  std::replace(words.begin(), words.end(), '_', ' ');
  return words;
}

std::string verdict_mark(VerdictKind kind, bool ascii) {
  switch (kind) {
    case VerdictKind::vanishes: return ascii ? "v" : "▼";
    case VerdictKind::explodes: return ascii ? "^" : "▲";
    case VerdictKind::healthy: return ascii ? "o" : "●";
    case VerdictKind::dead: return ascii ? "x" : "✕";
    case VerdictKind::does_not_learn: return ascii ? "=" : "■";
    case VerdictKind::diverged: return ascii ? "!" : "◆";
    case VerdictKind::not_measured: return ascii ? "?" : "○";
  }
  return "?";
}

}  // namespace gradflow::app
