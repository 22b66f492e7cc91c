// Questions that several writers ask of a StudyResult.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "apps/study/results.h"

namespace gradflow::app {

// The network of the factorial with these levels; null if the study has none, or only as yardstick.
const NetworkResult* find_network(const StudyResult& study, bool residual, std::string_view activation,
                                  std::string_view init, std::string_view norm);

// All of the factorial that satisfy `wanted(network)`, in study order, without the yardstick.
template <class Predicate>
std::vector<const NetworkResult*> select_networks(const StudyResult& study, Predicate wanted) {
  std::vector<const NetworkResult*> found;
  for (const NetworkResult& network : study.networks) {
    if (!network.yardstick && wanted(network)) found.push_back(&network);
  }
  return found;
}

const NetworkResult* yardstick(const StudyResult& study);  // null if there is none

// |dL/dz^lower| / |dL/dz^upper| at a moment; NaN if there are no such layers.
double gradient_ratio(const Moment& moment, int lower, int upper);
// The same for the whole network: layer 1 over layer L.
double end_to_end_ratio(const Moment& moment);

double chance(const StudyResult& study);
// The accuracy from which a network counts as learning, as in apps/study/verdict.h: against the yardstick's
// accuracy, or against 100% where there is none above chance.
double learning_bar(const StudyResult& study);
bool learns(const StudyResult& study, const NetworkResult& network);
// Held-out accuracy to show: NaN for a network that diverged, whose outputs are no numbers any more.
double shown_accuracy(const NetworkResult& network);
// Trained to the end, or diverged on the way: not cut short by an interrupt.
bool was_trained(const NetworkResult& network);

// "sigmoid", "tanh", "ReLU"; "Xavier", "He"; "no norm", "batch norm": anything else as it is.
std::string display(std::string_view level);
// "sigmoid, Xavier, no norm"
std::string factors_title(const NetworkResult& network);
// "vanishes", "does not learn"
std::string verdict_words(VerdictKind kind);
// The verdict's mark, to be told apart without color: ▼ vanishes, ▲ explodes, ● healthy, ✕ dead, ■ does not
// learn, ◆ diverged, ○ not measured.
std::string verdict_mark(VerdictKind kind, bool ascii = false);

}  // namespace gradflow::app
