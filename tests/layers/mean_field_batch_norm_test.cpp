// Predictions behind batch norm, against tables (mean_field_tables.h).
#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <numbers>

#include "gradflow/kernels/error.h"
#include "mean_field_tables.h"

namespace gradflow {
namespace {

struct BatchNormRow {
  PointwiseId act;
  double infinite;               // lambda
  std::array<double, 6> finite;  // B = 8, 16, 32, 64, 128, 256 (Monte Carlo)
  std::array<double, 3> ratio;   // over 19, 49, 99 layers, infinite batch
  double first;                  // extra factor of layer 1 for inputs of variance 1
};

TEST(MeanFieldBatchNorm, PlainGrowthAtEveryBatch) {
  using enum PointwiseId;
  const BatchNormRow rows[] = {
      {relu, 1.466942, {1.785, 1.588, 1.523, 1.495, 1.479, 1.474}, {38.10, 1.194e4, 1.728e8}, 0.584},
      {tanh, 1.177807, {1.356, 1.245, 1.206, 1.192, 1.184, 1.182}, {4.734, 55.12, 3297}, 0.628},
      {sigmoid, 1.033592, {1.223, 1.105, 1.064, 1.049, 1.041, 1.038}, {1.369, 2.247, 5.132}, 0.208},
      {identity, 1, {1.2000, 1.0769, 1.0345, 1.0164, 1.0080, 1.0040}, {1, 1, 1}, 1},
  };
  for (const auto& row : rows) {
    const std::string name(info_of(row.act).name);
    expect_within(batch_norm_moments(row.act, kInf).growth, row.infinite, 0.51e-6, name);
    for (std::size_t i = 0; i < row.finite.size(); ++i) {
      const double batch = std::pow(2.0, 3.0 + static_cast<double>(i));
      // The table was simulated over 4e5 batches of one unit, standard error about 0.5%... of lambda - 1
      // at best and of lambda at worst: allow 0.5% of lambda. Linear is exact, 4 decimals typed.
      const double tolerance = row.act == identity ? 0.51e-4 : 0.005 * row.finite[i];
      expect_within(batch_norm_moments(row.act, batch).growth, row.finite[i], tolerance,
                    name + ", batch " + std::to_string(batch));
    }
    // The weights' size cancels; the input's does not.
    for (double sw2 : {2.0, 0.01}) {
      MeanFieldNet net = net_of(row.act, 101, sw2);
      net.batch_norm = true;
      const auto p = predict_mean_field(net);
      const auto over = [&](std::size_t n) { return p.gradient_norm_relative[100 - n]; };
      expect_digits(over(19), row.ratio[0], 4, name + " 19");
      expect_digits(over(49), row.ratio[1], 4, name + " 49");
      expect_digits(over(99), row.ratio[2], 4, name + " 99");
      expect_digits(p.factor[0] / p.factor[1], row.first, 3, name + " first layer");
      expect_within(p.chi_fixed, row.infinite, 0.51e-6, name + " chi*");
    }
  }
}

TEST(MeanFieldBatchNorm, GrowthIsContinuousInTheBatchAndInfiniteBelowFour) {
  using enum PointwiseId;
  EXPECT_DOUBLE_EQ(batch_norm_moments(relu, kInf).growth, std::numbers::pi / (std::numbers::pi - 1));
  for (PointwiseId act : {relu, tanh, sigmoid, identity}) {
    double before = kInf;
    for (double batch : {4., 5., 6., 12., 100., 1e4, 1e6, 1e9}) {
      const double growth = batch_norm_moments(act, batch).growth;
      EXPECT_LT(growth, before);
      EXPECT_GT(growth, 1);
      before = growth;
    }
    expect_within(before, batch_norm_moments(act, kInf).growth, 1e-6, "large batch");
    EXPECT_TRUE(std::isnan(batch_norm_moments(act, 3).growth));
    EXPECT_THROW(batch_norm_moments(act, 1), UserError);
  }
  MeanFieldNet net = net_of(relu, 5, 2);
  net.batch_norm = true;
  net.batch = 3;
  EXPECT_TRUE(std::isnan(predict_mean_field(net).factor[1]));
  EXPECT_NE(predict_mean_field(net).regime.find("no prediction"), std::string::npos);
}

// A non-square head changes the step below it, and only that.
TEST(MeanFieldBatchNorm, NonSquareHeadAndInputVariance) {
  MeanFieldNet net = net_of(PointwiseId::tanh, 6, 1);
  net.batch_norm = true;
  const auto square = predict_mean_field(net);
  net.sw2.back() = 1.8;
  net.input_variance = 0.25;
  const auto p = predict_mean_field(net);
  EXPECT_DOUBLE_EQ(p.factor[4], square.factor[4] * std::sqrt(1.8));
  EXPECT_DOUBLE_EQ(p.factor[3], square.factor[3]);
  EXPECT_DOUBLE_EQ(p.factor[0], square.factor[0] * 2);
}

TEST(MeanFieldBatchNorm, ResidualStreamRatios) {
  using enum PointwiseId;
  struct Row {
    PointwiseId act;
    int branch, blocks;
    double ratio;
  };
  const Row rows[] = {
      {relu, 1, 10, 4.164},     {relu, 1, 54, 13.08},    {relu, 1, 100, 20.35},    {tanh, 1, 10, 3.512},
      {tanh, 1, 54, 8.926},     {tanh, 1, 100, 12.75},   {sigmoid, 1, 10, 1.381},  {sigmoid, 1, 54, 2.453},
      {sigmoid, 1, 100, 3.229}, {relu, 2, 10, 7.018},    {relu, 2, 27, 18.11},     {relu, 2, 54, 36.74},
      {relu, 2, 100, 70.02},    {tanh, 2, 10, 4.223},    {tanh, 2, 54, 12.61},     {tanh, 2, 100, 19.17},
      {sigmoid, 2, 10, 1.395},  {sigmoid, 2, 54, 2.527}, {sigmoid, 2, 100, 3.357},
  };
  for (const auto& row : rows) {
    MeanFieldNet net = residual_net(row.act, row.blocks, row.branch, 2);
    net.batch_norm = true;
    const auto p = predict_mean_field(net);
    const std::string what = std::string(info_of(row.act).name) + ", " + std::to_string(row.blocks) +
                             " blocks of " + std::to_string(row.branch);
    expect_digits(stream_ratio(p), row.ratio, 4, what);
    EXPECT_EQ(p.chi_fixed, 1);
  }
}

// The squared factor is 1 + G/s with s growing by v a block; G, v and the exponent G/2v are tabled for sw2
// = 2.
TEST(MeanFieldBatchNorm, ResidualConstants) {
  using enum PointwiseId;
  struct Row {
    PointwiseId act;
    double g1, v, e1, g2, e2;
  };
  for (const Row& row :
       {Row{relu, 1, 0.6817, 0.733, 1.4669, 1.076}, Row{tanh, 0.9288, 0.7886, 0.589, 1.0940, 0.694},
        Row{sigmoid, 0.0897, 0.0868, 0.517, 0.0927, 0.534}}) {
    const auto bn = batch_norm_moments(row.act, kInf);
    const double v = 2 * bn.variance, g1 = bn.growth * v, g2 = bn.growth * bn.growth * v;
    expect_within(v, row.v, 0.51e-4, "v");
    expect_within(g1, row.g1, 0.51e-4, "G1");
    expect_within(g2, row.g2, 0.51e-4, "G2");
    expect_within(g1 / 2 / v, row.e1, 0.51e-3, "exponent 1");
    expect_within(g2 / 2 / v, row.e2, 0.51e-3, "exponent 2");
    MeanFieldNet net = residual_net(row.act, 3, 1, 2);
    net.batch_norm = true;
    const auto p = predict_mean_field(net);
    for (int l = 0; l < 3; ++l) {
      const double f = p.factor[static_cast<std::size_t>(l)];
      expect_within(f * f, 1 + g1 / (1 + l * v), 1e-12, "1 + G/s");
    }
  }
}

}  // namespace
}  // namespace gradflow
