#include "apps/report/headline.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "apps/report/numbers.h"
#include "apps/report/study_view.h"
#include "apps/study/pair_claims.h"

namespace gradflow::app {
namespace {

using Networks = std::vector<const NetworkResult*>;

long count(const Networks& networks, VerdictKind kind) {
  return std::count_if(networks.begin(), networks.end(),
                       [&](const NetworkResult* n) { return n->at_init.kind == kind; });
}

std::string amount(long number) { return number == 0 ? "none" : fmt::format("{}", number); }

// "it vanishes in 3 of 12 networks and explodes in 1"; other fates only where there are any
std::string fates(const Networks& networks, const std::string& subject, const char* noun) {
  const long total = static_cast<long>(networks.size());
  struct Fate {
    VerdictKind kind;
    const char* verb;
  };
  std::vector<std::string> parts;
  parts.push_back(
      fmt::format("vanishes in {} of {}{}", amount(count(networks, VerdictKind::vanishes)), total, noun));
  parts.push_back(fmt::format("explodes in {}", amount(count(networks, VerdictKind::explodes))));
  for (const Fate& fate : {Fate{VerdictKind::dead, "is exactly zero or meets mostly dead units in"},
                           Fate{VerdictKind::diverged, "is not finite in"}}) {
    if (const long hits = count(networks, fate.kind)) parts.push_back(fmt::format("{} {}", fate.verb, hits));
  }
  std::string text = subject;
  for (std::size_t i = 0; i < parts.size(); ++i) {
    text += (i == 0 ? " " : i + 1 == parts.size() ? " and " : ", ") + parts[i];
  }
  return text;
}

std::string extremes(const StudyResult& study) {
  const Networks known = select_networks(study, [](const NetworkResult& n) {
    return std::isfinite(n.at_init.end_to_end) && n.at_init.end_to_end > 0;
  });
  if (known.empty()) return "";
  const auto [low, high] = std::minmax_element(known.begin(), known.end(), [](const auto* a, const auto* b) {
    return a->at_init.end_to_end < b->at_init.end_to_end;
  });
  std::string text;
  if ((*low)->at_init.end_to_end < 1) {
    text += fmt::format(
        "Least arrives in the {} network ({}): {} of the gradient at layer {} is left at layer 1. ",
        (*low)->residual ? "residual" : "plain", factors_title(**low), pretty((*low)->at_init.end_to_end),
        (*low)->depth);
  }
  if ((*high)->at_init.end_to_end > 1) {
    text += fmt::format("It grows most in the {} network ({}): {} times. ",
                        (*high)->residual ? "residual" : "plain", factors_title(**high),
                        pretty((*high)->at_init.end_to_end));
  }
  return text;
}

std::string outcome(const StudyResult& study) {
  const NetworkResult* shallow = yardstick(study);
  if (shallow == nullptr || !std::isfinite(shallow->final_accuracy)) return "";
  std::string counts;
  for (const bool residual : {false, true}) {
    const Networks all = select_networks(
        study, [&](const NetworkResult& n) { return n.residual == residual && was_trained(n); });
    if (all.empty()) continue;
    const long good =
        std::count_if(all.begin(), all.end(), [&](const NetworkResult* n) { return learns(study, *n); });
    counts += counts.empty() ? "" : " and ";
    counts += fmt::format("{} of {} {} networks", good, all.size(), residual ? "residual" : "plain");
  }
  if (counts.empty()) return "";
  return fmt::format(
      "After {} training steps {} learn (at least {} held-out accuracy; the shallow network reaches {}).",
      study.steps, counts, percent(learning_bar(study)), percent(shallow->final_accuracy));
}

}  // namespace

Headline headline(const StudyResult& study) {
  const Networks plain = select_networks(study, [](const NetworkResult& n) { return !n.residual; });
  const Networks residual = select_networks(study, [](const NetworkResult& n) { return n.residual; });
  Headline text;
  if (plain.empty() && residual.empty()) {
    text.claim = "No network was measured.";
    return text;
  }
  if (plain.size() + residual.size() == 1) {  // one run, not a comparison
    const NetworkResult& only = plain.empty() ? *residual.front() : *plain.front();
    const bool from_start = !only.moments.empty() && only.moments.front().step == 0;
    const char* const when = only.init == kLoadedWeights ? "With the weights it was given" : "At initialization";
    text.claim = from_start ? fmt::format("{}: {} – {}.", when, only.at_init.headline, only.at_init.evidence)
                            : "The initialization was not measured.";
    text.detail = fmt::format("At the end: {} – {}.", only.trained.headline, only.trained.evidence);
    return text;
  }
  text.claim = "At initialization, ";
  if (!plain.empty()) text.claim += fates(plain, "without skips the gradient", " networks");
  if (!plain.empty() && !residual.empty()) text.claim += "; ";
  if (!residual.empty())
    text.claim += plain.empty() ? fates(residual, "with skips the gradient", " networks")
                                : fates(residual, "with skips it", "");
  text.claim += ".";
  text.detail = extremes(study) + outcome(study);
  if (study.pair && study.pair->why_not.empty())
    text.detail += fmt::format("{}plain-56 and ResNet-56 in their first {} steps: {}", text.detail.empty() ? "" : " ", study.pair->steps,
                               pair_summary(*study.pair, pair_claims(*study.pair, study.thresholds)));
  return text;
}

}  // namespace gradflow::app
