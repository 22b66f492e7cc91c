#include "apps/sample_pair.h"

#include <fmt/format.h>

#include <cmath>

#include "apps/study/pair.h"
#include "apps/study/verdict.h"

namespace gradflow::app {
namespace {

constexpr int kPairDepth = 56;

// Growth of the gradient a layer, the length of the first weight relative to the start, and of the batch's
// loss.
struct Told {
  int step;
  double growth, length, loss;
};

// Early weights are long and their gradients small; both fade over the first half of the network.
Moment make_moment(const Told& told, bool residual) {
  Moment moment{.step = told.step, .loss = told.loss};
  for (int l = 1; l <= kPairDepth; ++l) {
    LayerRow row;
    row.layer = l;
    row.name = l == 1 ? "conv1" : l == kPairDepth ? "fc" : fmt::format("layer1.{}.conv{}", l / 2 - 1, l % 2 + 1);
    const double early = std::max(0.0, 1 - (l - 1) / 27.0);
    row.gradient_norm = 0.05 * std::pow(told.growth, kPairDepth - 1 - l);
    row.weight_norm = 5.65 * std::pow(told.length, early);
    row.weight_gradient_norm = row.gradient_norm / std::pow(told.length, early);
    row.update_ratio = 1e-4 + 0.1 * row.weight_gradient_norm / row.weight_norm;
    row.z_rms = 1.4;
    row.activation_mean = 0.4;
    row.activation_std = 0.58;
    row.gradient_zeros = row.gradient_denormals = 0;
    if (l < kPairDepth) row.effective_rate = 0.1 / (row.weight_norm * row.weight_norm);
    row.first_exponent = -12;
    row.exponent_shares = {0.25, 0.5, 0.25};
    if (residual && l < kPairDepth && l % 2 == 0) row.gradient_norm *= 0.8;  // inside a block
    moment.layers.push_back(row);
  }
  return moment;
}

NetworkResult make_network(bool residual, std::initializer_list<Told> story, double accuracy) {
  NetworkResult n = unmeasured(pair_choices()[residual ? 1 : 0]);
  n.parameters = 853018;
  for (const Told& told : story) {
    n.moments.push_back(make_moment(told, residual));
    n.curve.push_back({.step = told.step, .train_loss = told.step ? told.loss : kMissing});
  }
  n.curve.back().test_accuracy = n.final_accuracy = accuracy;
  n.curve.back().test_loss = n.final_loss = 1.1 * n.curve.back().train_loss;
  n.at_init = judge_at_init(n, {});
  return n;
}

}  // namespace

PairResult sample_pair() {
  PairResult pair;
  pair.data = "fashion-mnist, images of 14x14x1: 2x2 pixels averaged into one";
  pair.reduction = "images of 14x14x1 instead of 28x28x1, so that it fits into a minute on two cores";
  pair.optimizer = "sgd lr=0.1 momentum=0.9 weight_decay=0.0001, no warm-up, no augmentation";
  pair.learning_rate = 0.1;
  pair.batch = 128;
  pair.steps = 120;
  pair.held_out = 2000;
  pair.seconds = 26.5;
  pair.networks.push_back(make_network(false,
                                       {{0, 1.190, 1, 2.34},
                                        {1, 1.03, 6, 2.33},
                                        {2, 1.02, 12, 2.36},
                                        {5, 0.999, 25, 2.32},
                                        {10, 0.984, 40, 2.37},
                                        {20, 0.982, 54, 2.39},
                                        {40, 0.973, 60, 2.31},
                                        {120, 0.97, 60, 2.30}},
                                       0.12));
  pair.networks.push_back(make_network(true,
                                       {{0, 1.060, 1, 5.11},
                                        {1, 1.063, 1, 7.6},
                                        {2, 1.065, 1, 12.7},
                                        {5, 1.071, 1.02, 17.1},
                                        {10, 1.059, 1.4, 8.8},
                                        {20, 1.054, 2.5, 4.6},
                                        {40, 1.05, 3.3, 2.2},
                                        {120, 1.03, 3.3, 0.9}},
                                       0.71));
  return pair;
}

}  // namespace gradflow::app
