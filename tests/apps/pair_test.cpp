// The pair plain-56 and ResNet-56: figures against closed forms, every answer at both sides of its rule, and
// a short run of the real thing.
#include "apps/study/pair.h"

#include <gtest/gtest.h>

#include <cmath>
#include <functional>

#include "apps/sample_pair.h"
#include "apps/study/pair_claims.h"
#include "gradflow/engine/device.h"

namespace gradflow::app {
namespace {

using Answer = PairClaim::Answer;

const PairClaim& claim(const std::vector<PairClaim>& claims, const std::string& id) {
  for (const PairClaim& c : claims)
    if (c.id == id) return c;
  throw std::logic_error("no claim " + id);
}

// The answer after `change` was done to the sample.
Answer answer_after(const std::string& id, const std::function<void(PairResult&)>& change) {
  PairResult pair = sample_pair();
  change(pair);
  return claim(pair_claims(pair, {}), id).answer;
}

Moment& moment_at(NetworkResult& network, int step) {
  for (Moment& m : network.moments)
    if (m.step == step) return m;
  throw std::logic_error("no such moment");
}

TEST(PairFigures, AreTheClosedForms) {
  const PairResult pair = sample_pair();
  const PairFigures f = *pair_figures(pair.networks[0], 40);  // 55 convolutions; |dz^l| = 0.05 * 0.973^(55-l)
  EXPECT_NEAR(f.growth, 0.973, 1e-12);
  EXPECT_NEAR(f.gradient_ratio, std::pow(0.973, 54), 1e-12);
  EXPECT_NEAR(f.weight_gradient_ratio, std::pow(0.973, 54) / 60, 1e-12);
  EXPECT_NEAR(f.first_weight_norm, 5.65 * 60, 1e-9);
  // Layers 1..13 of 55: |W| / |W at the start| is 60^(1 - (l-1)/27), in the geometric mean 60^(1 - 6/27).
  EXPECT_NEAR(f.early_rate, std::pow(60, -2 * (1 - 6 / 27.0)), 1e-12);
  EXPECT_NEAR(f.late_rate, 1, 1e-12);
  // lr |dW| / |W|: 0.1 * 0.05 * 0.973^(55-l) / 5.65 / 60^(2 (1 - (l-1)/27)), l = 7 in the mean.
  EXPECT_NEAR(f.early_turn / (0.1 * 0.05 / 5.65 * std::pow(0.973, 48) * std::pow(60, -2 * (1 - 6 / 27.0))), 1,
              1e-12);
  // The angle of a step longer than its weight is not the quotient: behind batch norm the step is at a right
  // angle to the weight, so their sum has turned by arctan(step / weight), by π/2 at the most.
  LayerRow row;
  row.weight_norm = 3;
  row.effective_rate = 0.1 / 9;
  row.weight_gradient_norm = 40;
  EXPECT_NEAR(turn(row), std::atan2(4, 3), 1e-12);
  row.weight_gradient_norm = 3e-5;
  EXPECT_NEAR(turn(row), 1e-6, 1e-16);
  EXPECT_FALSE(pair_figures(pair.networks[0], 3));
  NetworkResult small = pair.networks[0];
  for (Moment& m : small.moments) m.layers.resize(8);
  EXPECT_FALSE(pair_figures(small, 0));
}

TEST(PairClaims, HoldForTheSample) {
  const std::vector<PairClaim> claims = pair_claims(sample_pair(), {});
  ASSERT_EQ(claims.size(), 5u);
  for (const PairClaim& c : claims) {
    EXPECT_EQ(c.answer, Answer::holds) << c.id << ": " << c.measured;
    EXPECT_FALSE(c.expected.empty() || c.rule.empty());
  }
  EXPECT_EQ(pair_summary(sample_pair(), claims), "5 of 5 predictions hold in this run.");
}

TEST(PairClaims, SayNoWhereTheNumbersDo) {
  const auto all_layers = [](int network, int step, double LayerRow::*value, double factor) {
    return [=](PairResult& pair) {
      for (LayerRow& row : moment_at(pair.networks[static_cast<std::size_t>(network)], step).layers)
        row.*value *= std::pow(factor, 56 - row.layer);
    };
  };
  EXPECT_EQ(answer_after("explodes", all_layers(0, 0, &LayerRow::gradient_norm, 0.97)),
            Answer::fails);  // 1.154 a layer
  EXPECT_EQ(answer_after("explodes", all_layers(0, 0, &LayerRow::gradient_norm, 0.98)), Answer::holds);
  EXPECT_EQ(answer_after("explodes", all_layers(1, 0, &LayerRow::gradient_norm, 1.04)), Answer::fails);
  EXPECT_EQ(answer_after("level",
                         [&](PairResult& pair) {
                           all_layers(0, 1, &LayerRow::gradient_norm, 1.1)(pair);
                           all_layers(0, 2, &LayerRow::gradient_norm, 1.1)(pair);
                         }),
            Answer::fails);
  EXPECT_EQ(answer_after("level", all_layers(0, 1, &LayerRow::gradient_norm, 1.1)),
            Answer::holds);  // step 2 still is
  const auto rate = [](int network, double factor) {
    return [=](PairResult& pair) {
      for (LayerRow& row : moment_at(pair.networks[static_cast<std::size_t>(network)], 40).layers)
        row.effective_rate *= factor;
    };
  };
  EXPECT_EQ(answer_after("collapse", rate(0, 10)), Answer::fails);
  EXPECT_EQ(answer_after("collapse", rate(1, 0.01)), Answer::fails);
  EXPECT_EQ(answer_after("frozen", all_layers(0, 120, &LayerRow::weight_gradient_norm, 1.2)), Answer::fails);
  EXPECT_EQ(answer_after("frozen", all_layers(0, 120, &LayerRow::gradient_norm, 0.8)),
            Answer::fails);  // that one vanishes
  EXPECT_EQ(answer_after("frozen", all_layers(1, 120, &LayerRow::weight_gradient_norm, 0.8)), Answer::fails);
  EXPECT_EQ(answer_after("learns", [](PairResult& pair) { pair.networks[0].curve.back().train_loss = 0.5; }),
            Answer::fails);
}

TEST(PairClaims, StayOpenWhereNothingWasMeasured) {
  EXPECT_EQ(answer_after("level", [](PairResult& pair) { pair.networks[0].moments.resize(1); }),
            Answer::open);
  EXPECT_EQ(answer_after("collapse", [](PairResult& pair) { pair.networks[1].moments.resize(1); }),
            Answer::open);
  EXPECT_EQ(answer_after("frozen", [](PairResult& pair) { pair.networks[1].moments.resize(1); }),
            Answer::open);
  EXPECT_EQ(answer_after("learns", [](PairResult& pair) { pair.networks[1].curve.pop_back(); }),
            Answer::open);
  EXPECT_EQ(answer_after("explodes", [](PairResult& pair) { pair.networks[0].moments.clear(); }),
            Answer::open);
  PairResult one = sample_pair();
  one.networks.pop_back();
  EXPECT_TRUE(pair_claims(one, {}).empty());
  // NaN is no growth.
  EXPECT_EQ(
      answer_after("explodes",
                   [](PairResult& pair) { pair.networks[0].moments[0].layers[1].gradient_norm = kMissing; }),
      Answer::fails);
}

TEST(RunPair, SaysWhyImagesAreTooSmall) {
  const auto device = open_device("cpu");
  const PairResult pair =
      run_pair({}, PairSize::automatic, *device, load_dataset("synthetic:n=8,test=8,height=7,width=7,channels=1"), [](double, std::string_view) {});
  EXPECT_TRUE(pair.networks.empty());
  EXPECT_NE(pair.why_not.find("7x7x1"), std::string::npos) << pair.why_not;
}

TEST(RunPair, MeasuresBothNetworksFromTheSameWeights) {
  const auto device = open_device("cpu");
  const Dataset data = load_dataset("synthetic:n=256,test=64,height=16,width=17,channels=1");
  StudyOptions study;
  study.quick = true;
  double progress = 0;
  const PairResult pair = run_pair(study, PairSize::reduced, *device, data,
                                   [&](double done, std::string_view) { progress = done; });
  EXPECT_FALSE(pair.full_size);
  EXPECT_NE(pair.reduction.find("8x8x1 instead of 16x17x1"), std::string::npos) << pair.reduction;
  EXPECT_NEAR(progress, 1, 0.06);
  ASSERT_EQ(pair.networks.size(), 2u);
  for (const NetworkResult& n : pair.networks) {
    EXPECT_EQ(n.parameters, 853018 - 2 * 9 * 16);  // one channel instead of three in the stem
    ASSERT_EQ(n.moments.size(), 6u);               // 0, 1, 2, 5, 10, 20
    ASSERT_EQ(n.moments[0].layers.size(), 56u);
    EXPECT_TRUE(n.final_accuracy >= 0 && n.final_accuracy <= 1);
  }
  const auto &plain = pair.networks[0], &residual = pair.networks[1];
  EXPECT_FALSE(plain.residual);
  for (std::size_t l = 0; l < 56; ++l) {
    EXPECT_EQ(plain.moments[0].layers[l].name, residual.moments[0].layers[l].name);
    EXPECT_EQ(plain.moments[0].layers[l].weight_norm, residual.moments[0].layers[l].weight_norm);
  }
  // z is a convolution's own output: behind a batch norm its gradient has no component along it in any
  // channel, and the residual network's has no skip part to report.
  EXPECT_TRUE(std::isnan(residual.moments[0].layers[2].skip_norm));
  // |W|^2 after one step without momentum is |W|^2 + |update|^2, because the gradient is orthogonal to W (but
  // for weight decay, 1e-5 a step): what the effective rate is about.
  const LayerRow &before = plain.moments[0].layers[1], &after = plain.moments[1].layers[1];
  EXPECT_NEAR(after.weight_norm / before.weight_norm, std::hypot(1, before.update_ratio),
              1e-3 * std::hypot(1, before.update_ratio));
  EXPECT_NEAR(after.effective_rate * after.weight_norm * after.weight_norm, 0.1, 1e-9);
  EXPECT_TRUE(std::isnan(plain.moments[0].layers[55].effective_rate));
  // Explodes without skips, by less with them, also on noise of this size.
  EXPECT_GT(pair_figures(plain, 0)->growth, 1.1);
  EXPECT_LT(pair_figures(residual, 0)->growth, 1.1);
}

}  // namespace
}  // namespace gradflow::app
