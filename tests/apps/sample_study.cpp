#include "apps/sample_study.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <random>
#include <string>

#include "apps/sample_pair.h"
#include "apps/sample_theory.h"
#include "apps/study/verdict.h"

namespace gradflow::app {
namespace {

constexpr int kDepth = 50;
constexpr int kWidth = 128;
constexpr int kBatch = 128;
constexpr double kTopGradient = 0.084;  // about sqrt(0.9 / 128): softmax on 10 classes before training

// Share of the elements of N(0, rms^2) in each binary exponent, most of the mass.
void set_exponents(LayerRow& row, double rms) {
  if (!(rms > 0) || !std::isfinite(rms)) return;
  const int top = static_cast<int>(std::floor(std::log2(rms))) + 2;
  row.first_exponent = top - 17;
  for (int e = row.first_exponent; e <= top; ++e) {
    const auto below = [&](double x) { return std::erf(x / rms / std::sqrt(2.0)); };
    row.exponent_shares.push_back((below(std::ldexp(1.0, e + 1)) - below(std::ldexp(1.0, e))) *
                                  (1 - row.gradient_zeros));
  }
}

// The growth of batch norm in a plain net disappears within a few steps; everything else drifts a little.
double factor_at(const NetworkResult& network, double initial, int step) {
  if (network.norm == "bn" && !network.residual)
    return 1 + (initial - 1) * std::exp(-step / 3.0) - 0.004 * (step > 0);
  return initial * (1 + 0.0004 * std::log1p(step) * (network.residual ? 1 : -1));
}

Moment make_moment(const NetworkResult& network, const SampleTheory& theory, int step,
                   std::mt19937_64& random) {
  std::normal_distribution<double> noise(0.0, step == 0 ? 0.01 : 0.04);
  Moment moment{.step = step, .seeds = step == 0 ? 8 : 1, .loss = 2.3, .layers = {}};
  moment.layers.resize(network.depth);
  const bool broken = network.diverged_at && step >= *network.diverged_at;
  double predicted = kTopGradient;
  double measured = kTopGradient;
  double weight_gradient = 0.02;
  for (int l = network.depth; l >= 1; --l) {
    LayerRow& row = moment.layers[l - 1];
    row.layer = l;
    const bool head = l == network.depth;
    row.name = l == 1 ? "stem" : head ? "head" : fmt::format("block{:02}.linear", l - 1);
    if (!head) {
      const double factor = theory.factor[l - 1];
      predicted *= factor;
      const double seen = factor_at(network, factor, step) * std::exp(noise(random));
      measured *= seen;
      row.factor = broken ? kMissing : seen;
      weight_gradient *= network.activation == "relu" && network.norm == "none" && !network.residual
                             ? std::exp(noise(random))
                             : seen;
    }
    row.gradient_norm = broken ? kMissing : measured;
    if (step == 0) {
      const double spread = std::exp(0.01 + 0.012 * (network.depth - l));
      row.gradient_norm_low = measured / spread;
      row.gradient_norm_high = measured * spread;
      row.predicted_norm = predicted;
    }
    row.weight_norm = std::sqrt(theory.weight_variance * kWidth) * (1 + 0.001 * step);
    row.weight_gradient_norm = broken ? kMissing : weight_gradient;
    row.update_ratio = broken ? kMissing : 0.05 * weight_gradient / row.weight_norm;
    row.z_rms = std::sqrt(theory.q[l - 1]) * std::exp(noise(random));
    if (!head) {
      row.activation_mean = network.activation == "sigmoid" ? 0.5
                            : network.activation == "relu"  ? 0.4 * row.z_rms
                                                            : 0.0;
      row.activation_std = theory.activation_std[l - 1];
      if (network.activation == "relu") row.dead = 0.01 + 0.02 * std::abs(noise(random));
      if (network.activation != "relu") row.saturated = std::min(1.0, 0.02 * row.z_rms * row.z_rms);
      row.gradient_zeros = network.activation == "relu" && !network.residual ? 0.5 : 0.0;
    } else {
      row.gradient_zeros = 0;
    }
    row.gradient_denormals = measured < 1e-36 ? 0.4 : 0.0;
    row.nonfinite = broken ? 1 : 0;
    if (network.residual && l > 1 && l < network.depth) {
      const double branch = std::sqrt(std::max(theory.factor[l - 1] * theory.factor[l - 1] - 1, 1e-4));
      row.skip_norm = measured / theory.factor[l - 1];
      row.branch_norm = row.skip_norm * branch;
      row.skip_branch_cosine = noise(random);
    }
    if (!broken) set_exponents(row, measured / std::sqrt(static_cast<double>(kBatch) * (head ? 10 : kWidth)));
  }
  return moment;
}

void add_curve(NetworkResult& network, double reached, int steps) {
  for (int step = 0; step <= steps; step += 20) {
    if (network.diverged_at && step >= *network.diverged_at) break;
    const double progress = 1 - std::exp(-step / 60.0);
    const double accuracy = 0.1 + (reached - 0.1) * progress;
    network.curve.push_back({step, step == 0 ? kMissing : 2.303 - 2.6 * (accuracy - 0.1),
                             2.31 - 2.5 * (accuracy - 0.1), accuracy});
  }
  network.final_accuracy = network.diverged_at ? kMissing : network.curve.back().test_accuracy;
  network.final_loss = network.diverged_at ? kMissing : network.curve.back().test_loss;
}

void finish(NetworkResult& network, const SampleTheory& theory, double reached, const StudyResult& study) {
  std::mt19937_64 random(std::hash<std::string>{}(network.id));
  for (const int step : {0, 1, 2, 5, 10, 30, 100, study.steps}) {
    network.moments.push_back(make_moment(network, theory, step, random));
    if (network.diverged_at && step >= *network.diverged_at) break;
  }
  add_curve(network, reached, study.steps);
  network.at_init = judge_at_init(network, study.thresholds);
  network.trained = judge_trained(network, study.networks.empty() ? nullptr : &study.networks.front(),
                                  study.thresholds, study.classes);
}

StudyResult make_study() {
  StudyResult study;
  study.title = "Where did the gradient go?";
  study.gradflow_version = "0.1.0";
  study.git_revision = "0123abc";
  study.build = "g++ 12.2.0, RelWithDebInfo";
  study.date_utc = "2026-11-23 14:00:00";
  study.command = "gradflow demo --seed 1 --out 'a <b> & \"c\"'";
  study.device = "cpu";
  study.device_model = "an imaginary processor, 2 threads";
  study.libraries = "oneDNN 2.6.3, OpenMP";
  study.precision = "f32 storage and arithmetic, statistics in f64; no TF32, no fast-math, denormals kept";
  study.data = "fashion-mnist: 60000 + 10000 images 28x28x1, 10 classes";
  study.optimizer = "SGD, momentum 0.9, weight decay 0.0001";
  study.schedule = "constant, learning rate 0.05";
  study.seed = 1;
  study.init_seeds = 8;
  study.batch = kBatch;
  study.steps = 300;
  study.seconds = 61.4;

  NetworkResult shallow;
  shallow.id = "shallow";
  shallow.title = "shallow, ReLU, He";
  shallow.model_spec = "mlp:depth=3,width=128,act=relu,init=he";
  shallow.activation = "relu";
  shallow.init = "he";
  shallow.norm = "none";
  shallow.depth = 3;
  shallow.width = kWidth;
  shallow.parameters = 118282;
  shallow.yardstick = true;
  finish(shallow, sample_theory("relu", "he", "none", false, 3), 0.80, study);
  study.networks.push_back(shallow);

  for (const bool residual : {false, true}) {
    for (const char* activation : {"sigmoid", "tanh", "relu"}) {
      for (const char* init : {"xavier", "he"}) {
        for (const char* norm : {"none", "bn"}) {
          NetworkResult network;
          const std::string shape = residual ? "residual" : "plain";
          network.id = fmt::format("{}-{}-{}-{}", shape, activation, init, norm);
          network.residual = residual;
          network.activation = activation;
          network.init = init;
          network.norm = norm;
          network.depth = kDepth;
          network.width = kWidth;
          network.parameters = 894730;
          network.title = fmt::format(
              "{}, {}, {}, {}", shape, network.activation == "relu" ? "ReLU" : activation,
              network.init == "he" ? "He" : "Xavier", network.norm == "bn" ? "batch norm" : "no norm");
          network.model_spec = fmt::format("mlp:depth=50,width=128,act={},skip={},init={},norm={}",
                                           activation, residual ? "on" : "off", init, norm);
          const SampleTheory theory = sample_theory(activation, init, norm, residual, kDepth);
          if (network.id == "residual-relu-he-none") {
            network.diverged_at = 2;
            network.diverged_where = "block03.linear.weight gradient";
          }
          const bool gone = theory.end_to_end() < 1e-3;
          const bool stuck = network.id == "plain-tanh-he-none" ||
                             (network.norm == "bn" && network.activation == "sigmoid" && !residual);
          finish(network, theory, gone ? 0.1 : stuck ? 0.27 : residual ? 0.79 : 0.68, study);
          study.networks.push_back(network);
        }
      }
    }
  }
  study.pair = sample_pair();
  return study;
}

}  // namespace

StudyResult sample_study() {
  static const StudyResult study = make_study();
  return study;
}

}  // namespace gradflow::app
