// Verdicts on constructed networks: below, at and above every threshold, and everything a measurement can
// come back with.
#include "apps/study/verdict.h"

#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <limits>

#include "apps/study/gradient_profile.h"
#include "engine/temp_dir.h"

namespace gradflow::app {
namespace {

using test::has;

constexpr double kInf = std::numeric_limits<double>::infinity();
constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

using Norm = std::function<double(int layer)>;

Moment moment_of(int layers, const Norm& norm, int step = 0) {
  Moment m;
  m.step = step;
  for (int l = 1; l <= layers; ++l) {
    LayerRow row;
    row.layer = l;
    row.gradient_norm = norm(l);
    m.layers.push_back(row);
  }
  return m;
}

NetworkResult network_of(int layers, const Norm& norm) {
  NetworkResult n;
  n.depth = layers;
  n.moments = {moment_of(layers, norm)};
  return n;
}

// A factor a layer down from `top` at layer `layers`.
Norm geometric(int layers, double factor, double top = 0.05) {
  return [=](int l) { return top * std::pow(factor, layers - l); };
}

NetworkResult trained(const NetworkResult& base, double accuracy) {
  NetworkResult n = base;
  n.final_accuracy = accuracy;
  return n;
}

VerdictKind init_kind(const NetworkResult& n, const Thresholds& t = {}) { return judge_at_init(n, t).kind; }
#define EXPECT_HAS(text, part) EXPECT_TRUE(has(text, part))

// ------------------------------------------------------------------------------------ initialization
TEST(VerdictAtInit, VanishingSaysByHowMuchAndWhatWasPredicted) {
  NetworkResult n = network_of(50, geometric(50, 0.236));
  for (auto& row : n.moments[0].layers) row.predicted_norm = 0.05 * std::pow(0.23605, 50 - row.layer);
  const Verdict v = judge_at_init(n, {});
  EXPECT_EQ(v.kind, VerdictKind::vanishes);
  EXPECT_EQ(v.headline, "vanishes");
  EXPECT_NEAR(v.factor_per_layer, 0.236, 1e-12);
  EXPECT_NEAR(v.predicted_factor, 0.23605, 1e-12);
  EXPECT_NEAR(std::log10(v.end_to_end), 49 * std::log10(0.236), 1e-9);
  EXPECT_EQ(v.evidence,
            "the gradient shrinks by 0.236× a layer from layer 49 to 2 (layer 1 gets 1.9·10⁻³¹ of what layer "
            "50 gets); predicted 0.236 a layer, 1.9·10⁻³¹ in all");
}

TEST(VerdictAtInit, ExplodingSaysHowLargeItArrives) {
  const Verdict v = judge_at_init(network_of(50, geometric(50, 1.21117)), {});
  EXPECT_EQ(v.kind, VerdictKind::explodes);
  EXPECT_EQ(v.evidence,
            "the gradient grows by 1.21× a layer from layer 49 to 2 (layer 1 gets 1.2·10⁴ times what layer 50 "
            "gets)");
}

TEST(VerdictAtInit, LevelIsHealthy) {
  const Verdict v = judge_at_init(network_of(50, geometric(50, 1)), {});
  EXPECT_EQ(v.kind, VerdictKind::healthy);
  EXPECT_EQ(v.evidence, "the gradient stays level, 1.00× a layer from layer 49 to 2 (layer 1 gets 1.00 of what "
                        "layer 50 gets)");
}

// Grows from block to block, and still less arrives at layer 1: each number stands with its own layers.
TEST(VerdictAtInit, TheFactorAndTheRatioNameTheLayersTheySpeakOf) {
  const Verdict v = judge_at_init(
      network_of(10, [](int l) { return l == 10 ? 1.0 : l == 1 ? 0.1 : 0.2 * std::pow(1.02, 9 - l); }), {});
  EXPECT_EQ(v.evidence,
            "the gradient grows by 1.02× a layer from layer 9 to 2 (layer 1 gets 0.100 of what layer 10 gets)");
}

// Layers 2..9 decide: the weakest relative to layer 9.
TEST(VerdictAtInit, VanishingThresholdFromBothSidesAndExactlyAt) {
  for (double scale : {1.0, 0.7, 3e-5, 1e-30, 1e12}) {
    const auto kind = [&](double ratio) {
      return init_kind(network_of(10, [=](int l) { return scale * (l == 2 ? ratio : 1.0); }));
    };
    EXPECT_EQ(kind(0.999e-3), VerdictKind::vanishes) << scale;
    EXPECT_EQ(kind(1e-3 * (1 - 1e-9)), VerdictKind::vanishes) << scale;
    EXPECT_EQ(kind(1e-3), VerdictKind::healthy) << scale;
    EXPECT_EQ(kind(1e-3 * (1 + 1e-9)), VerdictKind::healthy) << scale;
  }
}

TEST(VerdictAtInit, ExplodingThresholdFromBothSidesAndExactlyAt) {
  for (double scale : {1.0, 0.7, 3e-5, 1e-30, 1e12}) {
    const auto kind = [&](double ratio) {
      return init_kind(network_of(10, [=](int l) { return scale * (l == 2 ? ratio : 1.0); }));
    };
    EXPECT_EQ(kind(1e3 * (1 - 1e-9)), VerdictKind::healthy) << scale;
    EXPECT_EQ(kind(1e3), VerdictKind::healthy) << scale;
    EXPECT_EQ(kind(1e3 * (1 + 1e-9)), VerdictKind::explodes) << scale;
  }
}

TEST(VerdictAtInit, OtherThresholdsAreObeyed) {
  Thresholds t;
  t.vanish_below = 0.5;
  t.explode_above = 2;
  EXPECT_EQ(init_kind(network_of(10, geometric(10, 0.9)), t), VerdictKind::vanishes);   // 0.9^7 = 0.478
  EXPECT_EQ(init_kind(network_of(10, geometric(10, 0.91)), t), VerdictKind::healthy);   // 0.517
  EXPECT_EQ(init_kind(network_of(10, geometric(10, 1.10)), t), VerdictKind::healthy);   // 1.949
  EXPECT_EQ(init_kind(network_of(10, geometric(10, 1.11)), t), VerdictKind::explodes);  // 2.076
}

// The steps at the head and at the stem are of another kind: neither hides nor fakes anything.
TEST(VerdictAtInit, SpecialStepsAtStemAndHeadDoNotDecide) {
  const auto kind = [](double head, double stem) {
    return init_kind(network_of(12, [=](int l) { return l == 12 ? head : l == 1 ? stem : 1.0; }));
  };
  EXPECT_EQ(kind(1, 1), VerdictKind::healthy);
  EXPECT_EQ(kind(1e4, 1), VerdictKind::healthy);
  EXPECT_EQ(kind(1e-4, 1), VerdictKind::healthy);
  EXPECT_EQ(kind(1, 1e-4), VerdictKind::healthy);
  EXPECT_EQ(kind(1, 1e4), VerdictKind::healthy);
  // A loss inside is not made good by the two ends.
  const Verdict v = judge_at_init(
      network_of(12, [](int l) { return l == 12  ? 1e-4
                                        : l == 1 ? 1.0
                                                 : std::pow(0.4, 11 - l); }), {});
  EXPECT_EQ(v.kind, VerdictKind::vanishes);
  EXPECT_NEAR(v.factor_per_layer, 0.4, 1e-12);
}

TEST(VerdictAtInit, ADipInTheMiddleIsSeen) {
  const Verdict v =
      judge_at_init(network_of(21, [](int l) { return std::pow(10.0, -4 + 0.4 * std::abs(l - 11)); }), {});
  EXPECT_EQ(v.kind, VerdictKind::vanishes);
  EXPECT_NEAR(v.end_to_end, 1, 1e-9);
  EXPECT_HAS(v.evidence, "weakest at layer 11, 2.5·10⁻⁴ of what layer 20 gets");
  const Verdict bump =
      judge_at_init(network_of(21, [](int l) { return std::pow(10.0, 4 - 0.4 * std::abs(l - 11)); }), {});
  EXPECT_EQ(bump.kind, VerdictKind::explodes);
  EXPECT_HAS(bump.evidence, "strongest at layer 11");
}

TEST(VerdictAtInit, OfADipAndABumpTheLargerDecides) {
  const auto kind = [](double dip, double bump) {
    return init_kind(network_of(10, [=](int l) { return l == 4 ? dip : l == 6 ? bump : 1.0; }));
  };
  EXPECT_EQ(kind(1e-5, 1e4), VerdictKind::vanishes);
  EXPECT_EQ(kind(1e-4, 1e5), VerdictKind::explodes);
}

TEST(VerdictAtInit, ShallowNetworksAreJudgedByAllTheirLayers) {
  for (int layers : {2, 3}) {
    const double steps = layers - 1;
    const auto kind = [&](double ratio) {
      return init_kind(network_of(layers, geometric(layers, std::pow(ratio, 1 / steps))));
    };
    EXPECT_EQ(kind(0.9e-3), VerdictKind::vanishes);
    EXPECT_EQ(kind(1.1e-3), VerdictKind::healthy);
    EXPECT_EQ(kind(0.9e3), VerdictKind::healthy);
    EXPECT_EQ(kind(1.1e3), VerdictKind::explodes);
  }
  const Verdict two = judge_at_init(network_of(2, geometric(2, 0.24)), {});
  EXPECT_EQ(two.evidence, "the gradient shrinks by 0.240× a layer from layer 2 to 1 (layer 1 gets 0.240 of what layer 2 gets)");
  EXPECT_EQ(init_kind(network_of(4, geometric(4, 0.01))), VerdictKind::healthy);  // 2..3: one step
}

// Two-layer blocks with branch_scale 0: rows 2, 4, 6, 8 lie inside a block and get nothing; the stream is
// untouched.
TEST(VerdictAtInit, RowsInsideAResidualBlockAreNotCompared) {
  NetworkResult n = network_of(10, [](int l) { return l % 2 == 0 && l < 10 ? 0.0 : 1.0; });
  EXPECT_EQ(init_kind(n), VerdictKind::dead) << "without the split these rows count";
  for (auto& row : n.moments[0].layers)
    if (row.layer % 2 == 1 && row.layer < 9) row.skip_norm = 1;
  const Verdict v = judge_at_init(n, {});
  EXPECT_EQ(v.kind, VerdictKind::healthy);
  EXPECT_NEAR(v.factor_per_layer, 1, 1e-12);
  for (auto& row : n.moments[0].layers)  // an overflow is still seen where the split is NaN with the rest
    if (row.layer <= 3) row.gradient_norm = row.skip_norm = kNaN, row.nonfinite = 1;
  EXPECT_EQ(init_kind(n), VerdictKind::explodes);
}

// -------------------------------------------------------------------------- zeros, denormals, non-finite
TEST(VerdictAtInit, DecayThroughDenormalsToZeroIsVanishing) {
  // Sigmoid with 0.141 a layer: the rms element reaches the smallest f32 denormal and then nothing.
  const auto norm = [](int l) {
    const double v = 0.05 * std::pow(0.14145, 80 - l);
    return v < 1e-44 ? 0.0 : v;
  };
  NetworkResult n = network_of(80, norm);
  for (auto& row : n.moments[0].layers) {
    row.gradient_denormals = row.gradient_norm < 1e-37 ? 0.9 : 0.0;
    if (row.gradient_norm > 0 && row.gradient_norm < 1e-37) row.gradient_norm *= 1.5;  // quantized
    row.predicted_norm = 0.05 * std::pow(0.14145, 80 - row.layer);
  }
  const Verdict v = judge_at_init(n, {});
  EXPECT_EQ(v.kind, VerdictKind::vanishes);
  EXPECT_NEAR(v.factor_per_layer, 0.14145, 1e-9) << "denormal layers must not bend the fit";
  EXPECT_EQ(v.end_to_end, 0);
  EXPECT_HAS(v.evidence, "shrinks by 0.141× a layer from layer 80 and underflows to exact zero at layer 29");
  EXPECT_HAS(v.evidence, "predicted 0.141 a layer, 7.9·10⁻⁶⁸ in all");
  for (auto& row : n.moments[0].layers) row.gradient_denormals = kMissing;  // the size alone tells as well
  EXPECT_EQ(init_kind(n), VerdictKind::vanishes);
}

TEST(VerdictAtInit, DenormalsWithoutZeroVanishToo) {
  NetworkResult n = network_of(60, geometric(60, 0.2));
  for (auto& row : n.moments[0].layers) row.gradient_denormals = row.gradient_norm < 1e-38 ? 1 : 0;
  const Verdict v = judge_at_init(n, {});
  EXPECT_EQ(v.kind, VerdictKind::vanishes);
  EXPECT_NEAR(v.factor_per_layer, 0.2, 1e-9);
}

TEST(VerdictAtInit, AGradientCutAtOneStrokeIsDead) {
  NetworkResult n = network_of(10, [](int l) { return l <= 4 ? 0.0 : 0.013; });
  n.moments[0].layers[3].dead = 1;
  const Verdict v = judge_at_init(n, {});
  EXPECT_EQ(v.kind, VerdictKind::dead);
  EXPECT_EQ(v.headline, "dead");
  EXPECT_HAS(v.evidence, "cut to exactly zero at layer 4, though 0.0130 arrives at layer 5");
  EXPECT_HAS(v.evidence, "of its units fire on no sample");
}

TEST(VerdictAtInit, NoGradientAtAllIsDead) {
  for (int layers : {2, 10}) {
    const Verdict v = judge_at_init(network_of(layers, [](int) { return 0.0; }), {});
    EXPECT_EQ(v.kind, VerdictKind::dead);
    EXPECT_HAS(v.evidence, "no gradient leaves the loss");
  }
}

TEST(VerdictAtInit, DeadUnitsFromBothSidesOfTheThreshold) {
  NetworkResult n = network_of(10, geometric(10, 1));
  const auto kind = [&](double dead) {
    n.moments[0].layers[5].dead = dead;
    return init_kind(n);
  };
  EXPECT_EQ(kind(0.899999), VerdictKind::healthy);
  EXPECT_EQ(kind(0.9), VerdictKind::dead);
  EXPECT_EQ(kind(1), VerdictKind::dead);
  EXPECT_HAS(judge_at_init(n, {}).evidence, "of the units of layer 6 fire on no sample seen");
  n.moments[0] = moment_of(10, geometric(10, 0.1));
  EXPECT_EQ(kind(1), VerdictKind::vanishes) << "the gradient comes first";
}

TEST(VerdictAtInit, OverflowIsExploding) {
  for (double beyond : {kInf, kNaN}) {
    NetworkResult n = network_of(40, [=](int l) { return l < 10 ? beyond : std::pow(10.0, 40 - l); });
    for (auto& row : n.moments[0].layers) row.nonfinite = row.layer < 10 ? 0.5 : 0.0;
    const Verdict v = judge_at_init(n, {});
    EXPECT_EQ(v.kind, VerdictKind::explodes);
    EXPECT_HAS(v.evidence, "grows by 10.0× a layer from layer 40 and overflows at layer 9");
  }
}

TEST(VerdictAtInit, NotFiniteFromTheStartIsDiverged) {
  NetworkResult n = network_of(10, [](int) { return kNaN; });
  for (auto& row : n.moments[0].layers) {
    row.nonfinite = 1;
    row.z_rms = row.layer < 7 ? std::pow(1e6, row.layer) : kInf;
  }
  const Verdict v = judge_at_init(n, {});
  EXPECT_EQ(v.kind, VerdictKind::diverged);
  EXPECT_HAS(v.evidence, "leaves the range of its numbers at layer 7");
}

TEST(VerdictAtInit, WhatWasNotMeasuredIsNotHealthy) {
  EXPECT_EQ(Verdict{}.kind, VerdictKind::not_measured);
  EXPECT_EQ(init_kind(NetworkResult{}), VerdictKind::not_measured);
  EXPECT_EQ(init_kind(network_of(0, [](int) { return 1.0; })), VerdictKind::not_measured);
  EXPECT_EQ(init_kind(network_of(1, [](int) { return 1.0; })), VerdictKind::not_measured);
  EXPECT_EQ(init_kind(network_of(10, [](int) { return kMissing; })), VerdictKind::not_measured);
  EXPECT_EQ(init_kind(network_of(10, [](int l) { return l == 5 ? 1.0 : kMissing; })),
            VerdictKind::not_measured);
  // Gaps are left out, the rest is judged.
  const auto gaps = [](int l) { return l % 3 == 0 ? kMissing : std::pow(0.2, 20 - l); };
  const Verdict v = judge_at_init(network_of(20, gaps), {});
  EXPECT_EQ(v.kind, VerdictKind::vanishes);
  EXPECT_NEAR(v.factor_per_layer, 0.2, 1e-12);
}

// ------------------------------------------------------------------------------------------ trained
NetworkResult yardstick_with(double accuracy) {
  NetworkResult n = trained(network_of(3, geometric(3, 0.8)), accuracy);
  n.yardstick = true;
  return n;
}

TEST(VerdictTrained, LearningThresholdFromBothSidesAndExactlyAt) {
  const NetworkResult net = network_of(50, geometric(50, 0.99)), yardstick = yardstick_with(0.9);
  const auto kind = [&](double accuracy) {
    return judge_trained(trained(net, accuracy), &yardstick, {}, 10).kind;
  };
  EXPECT_EQ(kind(0.1), VerdictKind::does_not_learn);
  EXPECT_EQ(kind(0.5799), VerdictKind::does_not_learn);  // 0.1 + 0.6 * 0.8 = 0.58
  EXPECT_EQ(kind(0.58), VerdictKind::healthy);
  EXPECT_EQ(kind(0.5801), VerdictKind::healthy);
  EXPECT_EQ(kind(0), VerdictKind::does_not_learn);
  const Verdict v = judge_trained(trained(net, 0.12), &yardstick, {}, 10);
  EXPECT_EQ(v.headline, "does not learn");
  EXPECT_HAS(v.evidence, "shrinks by 0.990× a layer from layer 49 to 2 (layer 1 gets 0.611 of what layer 50 gets)");
  EXPECT_HAS(v.evidence, "held-out accuracy 12.0\u00a0% (learning needs 58.0\u00a0%)");
}

TEST(VerdictTrained, WithoutAUsableYardstickPerfectIsTheMeasure) {
  const NetworkResult net = network_of(50, geometric(50, 0.99));
  NetworkResult at_chance = yardstick_with(0.1), unmeasured = yardstick_with(kMissing);
  for (const NetworkResult* yardstick :
       {static_cast<const NetworkResult*>(nullptr), static_cast<const NetworkResult*>(&at_chance),
        static_cast<const NetworkResult*>(&unmeasured)}) {
    const auto kind = [&](double accuracy) {
      return judge_trained(trained(net, accuracy), yardstick, {}, 10).kind;
    };
    EXPECT_EQ(kind(0.639), VerdictKind::does_not_learn);  // 0.1 + 0.6 * 0.9 = 0.64
    EXPECT_EQ(kind(0.64), VerdictKind::healthy);
  }
  NetworkResult self = yardstick_with(0.5);
  EXPECT_EQ(judge_trained(self, &self, {}, 10).kind, VerdictKind::does_not_learn);
  const NetworkResult copy = self;  // however it is handed over, the yardstick is not its own measure
  EXPECT_EQ(judge_trained(self, &copy, {}, 10).kind, VerdictKind::does_not_learn);
  self.final_accuracy = 0.85;
  EXPECT_EQ(judge_trained(self, nullptr, {}, 10).kind, VerdictKind::healthy);
  EXPECT_HAS(judge_trained(self, nullptr, {}, 10).evidence, "(learning needs 64.0\u00a0%, measured against 100\u00a0%)");
}

TEST(VerdictTrained, TakesTheLastAccuracyOfTheCurve) {
  NetworkResult net = network_of(10, geometric(10, 1));
  net.curve = {{0, kMissing, 2.3, 0.1}, {100, 0.5, 0.5, 0.8}, {110, 0.4, kMissing, kMissing}};
  EXPECT_EQ(judge_trained(net, nullptr, {}, 10).kind, VerdictKind::healthy);
  net.curve.clear();
  const Verdict v = judge_trained(net, nullptr, {}, 10);
  EXPECT_EQ(v.kind, VerdictKind::healthy);
  EXPECT_HAS(v.evidence, "held-out accuracy was not measured");
}

TEST(VerdictTrained, JudgesTheLastMomentWithoutPrediction) {
  NetworkResult net = network_of(50, geometric(50, 1.2));
  for (auto& row : net.moments[0].layers) row.predicted_norm = 1;
  net.moments.push_back(moment_of(50, geometric(50, 0.98), 100));
  for (auto& row : net.moments[1].layers) row.predicted_norm = 1;
  const Verdict v = judge_trained(trained(net, 0.85), nullptr, {}, 10);
  EXPECT_EQ(v.kind, VerdictKind::healthy);
  EXPECT_FALSE(has(v.evidence, "predicted"));
  EXPECT_TRUE(std::isnan(v.predicted_factor));
  EXPECT_EQ(init_kind(net), VerdictKind::explodes);
}

TEST(VerdictTrained, AVanishingNetworkThatLearnsSaysBoth) {
  const NetworkResult net = network_of(50, geometric(50, 0.7)), yardstick = yardstick_with(0.9);
  const Verdict no = judge_trained(trained(net, 0.1), &yardstick, {}, 10);
  EXPECT_EQ(no.kind, VerdictKind::vanishes);
  EXPECT_EQ(no.headline, "vanishes");
  const Verdict yes = judge_trained(trained(net, 0.88), &yardstick, {}, 10);
  EXPECT_EQ(yes.kind, VerdictKind::vanishes);
  EXPECT_EQ(yes.headline, "vanishes, yet learns");
}

TEST(VerdictTrained, DeadUnitsMatterOnlyWhereNothingIsLearned) {
  NetworkResult net = network_of(10, geometric(10, 1));
  const auto kind = [&](double dead, double accuracy) {
    net.moments[0].layers[5].dead = dead;
    return judge_trained(trained(net, accuracy), nullptr, {}, 10).kind;
  };
  EXPECT_EQ(kind(0.95, 0.85), VerdictKind::healthy);
  EXPECT_EQ(kind(0.95, 0.1), VerdictKind::dead);
  EXPECT_EQ(kind(0.89, 0.1), VerdictKind::does_not_learn);
  net.moments[0].layers[5].dead = 0.95;
  EXPECT_HAS(judge_trained(trained(net, 0.85), nullptr, {}, 10).evidence,
             "up to 95.0\u00a0% of the units dark on every sample (layer 6)");
}

TEST(VerdictTrained, ALossWithoutGradientIsDeadOnlyIfNothingWasLearned) {
  const NetworkResult net = network_of(10, [](int) { return 0.0; });
  EXPECT_EQ(judge_trained(trained(net, 0.1), nullptr, {}, 10).kind, VerdictKind::dead);
  EXPECT_EQ(judge_trained(trained(net, 0.99), nullptr, {}, 10).kind, VerdictKind::healthy);
}

TEST(VerdictTrained, DivergedComesFirst) {
  NetworkResult net = trained(network_of(10, geometric(10, 0.1)), 0.85);
  net.diverged_at = 37;
  net.diverged_where = "block03.linear.weight gradient";
  const Verdict v = judge_trained(net, nullptr, {}, 10);
  EXPECT_EQ(v.kind, VerdictKind::diverged);
  EXPECT_EQ(v.evidence,
            "the loss is not finite from step 37 on, first seen in block03.linear.weight gradient");
  net.moments.clear();
  EXPECT_EQ(judge_trained(net, nullptr, {}, 10).kind, VerdictKind::diverged);
  net.diverged_at.reset();
  EXPECT_EQ(judge_trained(net, nullptr, {}, 10).kind, VerdictKind::not_measured);
}

// Gradients behind batch norm look healthy when |W| has grown; only update-to-weight tells that nothing
// moves.
TEST(VerdictTrained, NamesFrozenEarlyLayersAndSaturation) {
  NetworkResult net = network_of(50, geometric(50, 1));
  for (auto& row : net.moments[0].layers) {
    row.update_ratio = row.layer <= 10 ? 2.1e-6 : 1.5e-3;
    row.saturated = row.layer == 12 ? 0.83 : 0.1;
  }
  const Verdict v = judge_trained(trained(net, 0.2), nullptr, {}, 10);
  EXPECT_EQ(v.kind, VerdictKind::does_not_learn);
  EXPECT_HAS(v.evidence, "a step moves the weights of layers 1–10 by 2.1·10⁻⁶ of their length, of layers 41–50 by 0.00150;");
  EXPECT_HAS(judge_trained(trained(net, 0.2), nullptr, {}, 10, 2e-5).evidence, "by 0.00150 (weight decay alone: 2.0·10⁻⁵)");
  EXPECT_HAS(v.evidence, "up to 83.0\u00a0% of the outputs saturated (layer 12)");
}

TEST(VerdictTrained, NaNEverywhereIsNoCrashAndNoHealth) {
  NetworkResult net = network_of(10, [](int) { return kNaN; });
  net.final_accuracy = kNaN;
  for (auto& row : net.moments[0].layers) row.update_ratio = row.dead = row.saturated = kNaN;
  EXPECT_EQ(judge_trained(net, nullptr, {}, 10).kind, VerdictKind::not_measured);
  for (auto& row : net.moments[0].layers) row.nonfinite = 1;
  EXPECT_EQ(judge_trained(net, nullptr, {}, 10).kind, VerdictKind::diverged);
}

TEST(Thresholds, ArePrintedWithTheirNumbers) {
  Thresholds t;
  t.vanish_below = 0.0025;
  t.explode_above = 4000;
  t.dead_fraction = 0.75;
  t.learn_fraction = 0.55;
  const std::string text = describe(t);
  for (const char* part : {"0.0025", "4000", "0.75", "0.55"}) EXPECT_HAS(text, part);
}

}  // namespace
}  // namespace gradflow::app
