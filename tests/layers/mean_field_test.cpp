// Predictions without normalization, against tables (mean_field_tables.h).
#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <numbers>

#include "gradflow/kernels/error.h"
#include "mean_field_tables.h"

namespace gradflow {
namespace {

// The definition, point by point: 4001 points on [-12, 12].
ActivationMoments naive_moments(PointwiseId act, double q) {
  ActivationMoments m;
  constexpr int kPoints = 4001;
  const double h = 24.0 / (kPoints - 1);
  for (int i = 0; i < kPoints; ++i) {
    const double z = -12 + h * i, w = h * std::exp(-z * z / 2) / std::sqrt(2 * std::numbers::pi);
    const double x = std::sqrt(q) * z;
    double y = x, d = 1;
    if (act == PointwiseId::tanh) y = std::tanh(x), d = 1 / (std::cosh(x) * std::cosh(x));
    const double s = 1 / (1 + std::exp(-x)), p = std::erfc(-x / std::numbers::sqrt2) / 2;
    if (act == PointwiseId::sigmoid) y = s, d = 1 / (2 + 2 * std::cosh(x));
    if (act == PointwiseId::leaky_relu) y = std::max(x, x / 100), d = x > 0 ? 1 : 0.01;
    if (act == PointwiseId::gelu) y = x * p, d = p + x * std::exp(-x * x / 2) / std::sqrt(2 * std::numbers::pi);
    if (act == PointwiseId::silu) y = x * s, d = s + x * s * (1 - s);
    if (act == PointwiseId::softplus) y = std::log1p(std::exp(-std::abs(x))) + std::max(x, 0.0), d = s;
    m.mean += w * y;
    m.mean_square += w * y * y;
    m.slope += w * d * d;
  }
  return m;
}

TEST(MeanFieldMoments, MatchTheDefinitionByQuadrature) {
  for (PointwiseId act : {PointwiseId::tanh, PointwiseId::sigmoid, PointwiseId::identity})
    for (double q : {0.0, 1e-6, 0.1, 1.0, 3.9, 4.1, 50.0, 2000.0}) {
      const auto fast = activation_moments(act, q), slow = naive_moments(act, q);
      const std::string what = std::string(info_of(act).name) + " q=" + std::to_string(q);
      // Both are exact to rounding (4001 sums of terms below max(1, q)).
      const double tolerance = 1e-12 * std::max(1.0, act == PointwiseId::identity ? q : 1.0);
      expect_within(fast.mean, slow.mean, tolerance, what);
      expect_within(fast.mean_square, slow.mean_square, tolerance, what);
      expect_within(fast.slope, slow.slope, tolerance, what);
    }
}

// At 2600 the moments are extrapolated (from 2500), with an error of q^(-3/2) beside 1. The naive sum errs at
// leaky ReLU's kink by the square of its step.
TEST(MeanFieldMoments, OfUnboundedActivations) {
  using enum PointwiseId;
  for (PointwiseId act : {leaky_relu, gelu, silu, softplus})
    for (double q : {0.0, 1e-6, 0.1, 1.0, 3.9, 50.0, 2000.0, 2600.0}) {
      const auto fast = activation_moments(act, q), slow = naive_moments(act, q);
      const std::string what = std::string(info_of(act).name) + " q=" + std::to_string(q);
      const double tolerance = act == leaky_relu || q > 2500 ? 2e-5 : 1e-11;
      expect_within(fast.mean, slow.mean, tolerance * std::max(1.0, std::sqrt(q)), what);
      expect_within(fast.mean_square, slow.mean_square, tolerance * std::max(1.0, q), what);
      if (act != leaky_relu || q > 0) expect_within(fast.slope, slow.slope, act == leaky_relu ? 2e-3 : tolerance, what);
    }
}

TEST(MeanFieldPlain, LimitsOfUnboundedActivations) {
  using enum PointwiseId;
  // GELU halves the mean square at most: with sw2 = 2 it dies out, with the slope 1/4 at 0.
  const auto dies = predict_mean_field(net_of(gelu, 50, 2));
  EXPECT_EQ(dies.q_fixed, 0);
  expect_within(dies.chi_fixed, 0.5, 1e-12, "gelu");
  EXPECT_EQ(dies.regime, "vanishes exponentially: 0.707x a layer (ordered)");
  // Far out all of them are ramps: m(q) = q/2, d = 1/2.
  for (PointwiseId act : {gelu, silu, softplus}) {
    const auto grows = predict_mean_field(net_of(act, 50, 6));
    EXPECT_EQ(grows.q_fixed, kInf) << info_of(act).name;
    EXPECT_EQ(grows.chi_fixed, 3);
    expect_within(predict_mean_field(residual_net(act, 5, 1, 2)).chi_fixed, 2, 1e-9, "residual");
  }
  // In between, the fixed point is one.
  for (PointwiseId act : {gelu, silu, softplus}) {
    MeanFieldNet net = net_of(act, 50, 1);
    net.sb2.assign(net.sw2.size(), 0.3);
    const double q = predict_mean_field(net).q_fixed;
    expect_within(activation_moments(act, q).mean_square + 0.3, q, 1e-12 * q, "fixed point");
  }
}

TEST(MeanFieldMoments, HaveTheLimitsOfSmallAndLargeVariance) {
  const auto relu = activation_moments(PointwiseId::relu, 3);
  EXPECT_DOUBLE_EQ(relu.mean_square, 1.5);
  EXPECT_DOUBLE_EQ(relu.slope, 0.5);
  EXPECT_DOUBLE_EQ(relu.mean, std::sqrt(3 / (2 * std::numbers::pi)));
  const double q = 1e-5;  // next terms are of order q^2 relative
  expect_within(activation_moments(PointwiseId::tanh, q).mean_square, q - 2 * q * q, 20 * q * q * q,
                "tanh m");
  expect_within(activation_moments(PointwiseId::tanh, q).slope, 1 - 2 * q, 20 * q * q, "tanh d");
  expect_within(activation_moments(PointwiseId::sigmoid, q).mean_square, 0.25 + q / 16, q * q, "sigmoid m");
  expect_within(activation_moments(PointwiseId::sigmoid, q).slope, 1.0 / 16 - q / 32, q * q, "sigmoid d");
  // Large q: d -> integral of phi'^2 / sqrt(2 pi q) (4/3 for tanh, 1/6 for sigmoid), relative error 1/q.
  for (double large : {1e6, 1e8, 1e10}) {
    const double density = 1 / std::sqrt(2 * std::numbers::pi * large);
    expect_within(activation_moments(PointwiseId::tanh, large).slope / density, 4.0 / 3, 1e-5, "tanh");
    expect_within(activation_moments(PointwiseId::sigmoid, large).slope / density, 1.0 / 6, 1e-5, "sigmoid");
  }
  EXPECT_THROW(activation_moments(PointwiseId::tanh, -1), UserError);
  EXPECT_THROW(activation_moments(PointwiseId::tanh, std::nan("")), UserError);
}

struct PlainRow {
  const char* name;
  PointwiseId act;
  double sw2, q_fixed;
  int q_digits;
  double chi;
  std::array<double, 4> gradient, weight;  // 10, 20, 50, 100 layers
};

TEST(MeanFieldPlain, GradientAndWeightGradientRatiosOfEveryInit) {
  using enum PointwiseId;
  const PlainRow rows[] = {
      {"sigmoid torch",
       sigmoid,
       1. / 3,
       0.08503,
       4,
       0.020008,
       {2.154e-8, 6.907e-17, 2.277e-42, 7.715e-85},
       {4.265e-8, 1.368e-16, 4.508e-42, 1.527e-84}},
      {"sigmoid xavier",
       sigmoid,
       1,
       0.26469,
       5,
       0.055721,
       {2.030e-6, 1.090e-12, 1.689e-31, 7.554e-63},
       {3.945e-6, 2.119e-12, 3.284e-31, 1.468e-62}},
      {"sigmoid he",
       sigmoid,
       2,
       0.55529,
       5,
       0.100977,
       {2.792e-5, 2.931e-10, 3.392e-25, 4.325e-50},
       {5.299e-5, 5.563e-10, 6.437e-25, 8.208e-50}},
      {"tanh torch",
       tanh,
       1. / 3,
       0,
       5,
       0.333333,
       {5.319e-3, 2.189e-5, 1.525e-12, 1.800e-24},
       {1.027, 1.027, 1.027, 1.027}},
      {"tanh xavier", tanh, 1, 0, 5, 1, {0.2812, 0.1946, 0.1210, 0.08489}, {1.167, 1.178, 1.184, 1.186}},
      {"tanh he", tanh, 2, 0.61796, 5, 1.105529, {1.032, 1.701, 7.661, 94.09}, {1.852, 3.060, 13.78, 169.3}},
      {"tanh 5/3",
       tanh,
       25. / 9,
       1.17848,
       6,
       1.209831,
       {1.767, 4.578, 79.72, 9.326e3},
       {2.712, 7.029, 122.4, 1.432e4}},
      {"relu torch", relu, 1. / 3, 0, 5, 0.166667, {3.150e-4, 4.051e-8, 8.616e-20, 3.030e-39}, {1, 1, 1, 1}},
      {"relu xavier", relu, 1, 0, 5, 0.5, {4.419e-2, 1.381e-3, 4.215e-8, 1.256e-15}, {1, 1, 1, 1}},
      {"relu he", relu, 2, 2, 5, 1, {1, 1, 1, 1}, {1, 1, 1, 1}},
      {"linear xavier", identity, 1, 1, 5, 1, {1, 1, 1, 1}, {1, 1, 1, 1}},
      {"linear he", identity, 2, kInf, 5, 2, {22.63, 724.1, 2.373e7, 7.961e14}, {1, 1, 1, 1}},
  };
  for (const auto& row : rows)
    for (std::size_t i = 0; i < kDepths.size(); ++i) {
      const auto p = predict_mean_field(net_of(row.act, kDepths[i], row.sw2));
      const std::string what = std::string(row.name) + ", " + std::to_string(kDepths[i]) + " layers";
      expect_digits(p.gradient_norm_relative.front(), row.gradient[i], 4, what);
      expect_digits(p.weight_gradient_ratio, row.weight[i], 4, what + ", weights");
      expect_digits(p.q_fixed, row.q_fixed, row.q_digits, what + ", q*");
      expect_digits(p.chi_fixed, row.chi, row.chi < 0.1 ? 5 : row.chi < 1 ? 6 : 7, what + ", chi*");
      ASSERT_EQ(p.q.size(), static_cast<std::size_t>(kDepths[i]));
      ASSERT_EQ(p.factor.size() + 1, p.q.size());
      double product = 0;
      for (double f : p.factor) product += std::log10(f);
      expect_within(p.log10_gradient_relative.front(), product, 1e-10, what + ", product of factors");
    }
}

TEST(MeanFieldPlain, FirstLayersAndFixedPointsInDetail) {
  using enum PointwiseId;
  const auto check = [](PointwiseId act, double sw2, std::array<double, 4> chi, int digits) {
    const auto p = predict_mean_field(net_of(act, 10, sw2));
    for (std::size_t l = 0; l < 4; ++l)
      expect_digits(p.factor[l] * p.factor[l], chi[l],
                    digits - (chi[l] < 0.1  ? 1
                              : chi[l] >= 1 ? -1
                                            : 0),
                    "chi");
  };
  check(sigmoid, 1, {0.04484, 0.05512, 0.05569, 0.05572}, 5);
  check(sigmoid, 2, {0.07405, 0.09856, 0.10078, 0.10096}, 5);
  check(tanh, 1, {0.46440, 0.63654, 0.72673, 0.78182}, 5);
  check(tanh, 2, {0.69902, 0.91488, 1.00836, 1.05406}, 5);
  const auto lecun = predict_mean_field(net_of(tanh, 10, 1)), he = predict_mean_field(net_of(tanh, 10, 2));
  const std::array<double, 4> q_lecun{1, 0.39429, 0.23645, 0.16666}, q_he{2, 1.03995, 0.80285, 0.70944};
  for (std::size_t l = 0; l < 4; ++l) {
    expect_within(lecun.q[l], q_lecun[l], 0.51e-5, "tanh lecun q");
    expect_within(he.q[l], q_he[l], 0.51e-5, "tanh he q");
  }
  // The sigmoid is critical only at sigma_w = 10.149, where q* = 45.6.
  const auto critical = predict_mean_field(net_of(sigmoid, 10, 10.149 * 10.149));
  expect_within(critical.chi_fixed, 1, 1e-4, "critical sigmoid chi");
  expect_within(critical.q_fixed, 45.6, 0.051, "critical sigmoid q*");
  EXPECT_DOUBLE_EQ(predict_mean_field(net_of(relu, 10, 1)).depth_scale, 1 / std::log(2.0));
  EXPECT_EQ(predict_mean_field(net_of(relu, 10, 2)).depth_scale, kInf);
}

TEST(MeanFieldPlain, RegimesInWords) {
  using enum PointwiseId;
  const auto regime = [](PointwiseId act, double sw2) {
    return predict_mean_field(net_of(act, 50, sw2)).regime;
  };
  EXPECT_EQ(regime(sigmoid, 1), "vanishes exponentially: 0.236x a layer (ordered)");
  EXPECT_EQ(regime(relu, 1), "vanishes exponentially: 0.707x a layer (ordered)");
  EXPECT_EQ(regime(relu, 2), "critical: at most polynomial in depth");
  EXPECT_EQ(regime(tanh, 1), "critical: at most polynomial in depth");
  EXPECT_EQ(regime(tanh, 2), "explodes exponentially: 1.05x a layer (chaotic)");
}

// Non-square stem and head (Xavier: Var W = 2/(fan_in + fan_out)), biases, and inputs of other size.
TEST(MeanFieldPlain, TakesEachLayersOwnVarianceBiasesAndInput) {
  MeanFieldNet net = net_of(PointwiseId::relu, 4, 1);
  net.sw2 = {2. * 784 / (784 + 128), 1, 1, 2. * 128 / (128 + 10)};
  net.sb2 = {0.1, 0.2, 0.3, 0.4};
  net.q0 = {0.5};
  const auto p = predict_mean_field(net);
  const double q1 = net.sw2[0] * 0.5 + 0.1, q2 = q1 / 2 + 0.2, q3 = q2 / 2 + 0.3,
               q4 = net.sw2[3] * q3 / 2 + 0.4;
  const std::array<double, 4> q{q1, q2, q3, q4};
  for (std::size_t l = 0; l < 4; ++l) EXPECT_DOUBLE_EQ(p.q[l], q[l]);
  EXPECT_DOUBLE_EQ(p.factor[2], std::sqrt(net.sw2[3] / 2));
  EXPECT_DOUBLE_EQ(p.factor[1], std::sqrt(0.5));
  EXPECT_DOUBLE_EQ(p.q_fixed, 0.3 / 0.5);
  EXPECT_DOUBLE_EQ(p.weight_gradient_ratio, p.gradient_norm_relative[0] * std::sqrt(0.5 / (q3 / 2)));
}

// Samples of different size pass different slopes; the squares of their gradients add up.
TEST(MeanFieldPlain, AveragesSquaresOverSamples) {
  MeanFieldNet net = net_of(PointwiseId::tanh, 6, 1.5);
  const auto one = [&](double q0) {
    net.q0 = {q0};
    return predict_mean_field(net);
  };
  const auto small = one(0.1), large = one(4);
  net.q0 = {0.1, 4};
  const auto both = predict_mean_field(net);
  for (std::size_t l = 0; l < 6; ++l) {
    const double a = small.gradient_norm_relative[l], b = large.gradient_norm_relative[l];
    EXPECT_NEAR(both.gradient_norm_relative[l], std::sqrt((a * a + b * b) / 2), 1e-14);
    EXPECT_NEAR(both.q[l], (small.q[l] + large.q[l]) / 2, 1e-14);
  }
}

TEST(MeanFieldPlain, StaysFiniteAtTenThousandLayers) {
  const auto p = predict_mean_field(net_of(PointwiseId::sigmoid, 10000, 1));
  EXPECT_EQ(p.gradient_norm_relative.front(), 0);
  // 9999 steps at sqrt(chi*), the first few differ by less than a decade in all.
  expect_within(p.log10_gradient_relative.front(), 9999 * 0.5 * std::log10(p.chi_fixed), 1, "log10");
}

struct ResidualRow {
  const char* name;
  PointwiseId act;
  double sw2;
  std::array<double, 4> one, two;
};

TEST(MeanFieldResidual, StreamRatiosWithoutNormalization) {
  using enum PointwiseId;
  const ResidualRow rows[] = {
      {"sigmoid 1", sigmoid, 1, {1.192, 1.350, 1.754, 2.364}, {1.010, 1.017, 1.034, 1.053}},
      {"sigmoid 2", sigmoid, 2, {1.352, 1.629, 2.367, 3.592}, {1.032, 1.052, 1.096, 1.148}},
      {"tanh 1", tanh, 1, {3.749, 8.130, 36.89, 195.0}, {2.550, 4.549, 14.31, 50.59}},
      {"tanh 2", tanh, 2, {7.214, 20.52, 157.9, 1526}, {6.670, 18.13, 129.7, 1165}},
      {"relu 1", relu, 1, {7.594, 57.67, 2.525e4, 6.376e8}, {3.052, 9.313, 264.7, 7.006e4}},
      {"relu 2", relu, 2, {32.00, 1024, 3.355e7, 1.126e15}, {32.00, 1024, 3.355e7, 1.126e15}},
      {"linear 1", identity, 1, {32.00, 1024, 3.355e7, 1.126e15}, {32.00, 1024, 3.355e7, 1.126e15}},
      {"linear 2", identity, 2, {243.0, 5.905e4, 8.473e11, 7.179e23}, {3125, 9.766e6, 2.980e17, 8.882e34}},
  };
  for (const auto& row : rows)
    for (std::size_t i = 0; i < kDepths.size(); ++i) {
      const std::string what = std::string(row.name) + ", " + std::to_string(kDepths[i]) + " blocks of ";
      const auto one = predict_mean_field(residual_net(row.act, kDepths[i], 1, row.sw2));
      const auto two = predict_mean_field(residual_net(row.act, kDepths[i], 2, row.sw2));
      EXPECT_EQ(two.q.size(), static_cast<std::size_t>(kDepths[i]) + 2);
      expect_digits(stream_ratio(one), row.one[i], 4, what + "1");
      expect_digits(stream_ratio(two), row.two[i], 4, what + "2");
    }
}

TEST(MeanFieldResidual, ScaledBranches) {
  for (const auto& [blocks, expected] : {std::pair{10, 1.6105}, {50, 1.6406}}) {
    MeanFieldNet net = residual_net(PointwiseId::relu, blocks, 1, 2);
    net.branch_scale = 1 / std::sqrt(blocks);
    expect_digits(stream_ratio(predict_mean_field(net)), expected, 5, "1/sqrt(L)");
    net.branch_scale = 0;  // SkipInit
    for (bool normalize : {false, true}) {
      net.batch_norm = normalize;
      const auto p = predict_mean_field(net);
      EXPECT_EQ(stream_ratio(p), 1);
      EXPECT_EQ(p.regime, "level: the branches are switched off");
    }
  }
}

TEST(MeanFieldResidual, RegimesInWords) {
  using enum PointwiseId;
  EXPECT_EQ(predict_mean_field(residual_net(relu, 50, 1, 2)).regime, "explodes exponentially: 1.41x a block");
  EXPECT_EQ(predict_mean_field(residual_net(tanh, 50, 1, 2)).regime,
            "grows more slowly than any exponential");
  MeanFieldNet net = residual_net(relu, 50, 2, 2);
  net.batch_norm = true;
  EXPECT_EQ(predict_mean_field(net).regime, "grows polynomially with depth");
}

TEST(MeanField, RefusesWhatIsNoNetwork) {
  const MeanFieldNet good = residual_net(PointwiseId::relu, 3, 2, 2);
  EXPECT_NO_THROW(predict_mean_field(good));
  const auto refused = [&](auto&& spoil) {
    MeanFieldNet net = good;
    spoil(net);
    EXPECT_THROW(predict_mean_field(net), UserError);
  };
  refused([](MeanFieldNet& n) { n.sw2 = {1}; });
  refused([](MeanFieldNet& n) { n.sw2.pop_back(); });
  refused([](MeanFieldNet& n) { n.sw2[1] = -1; });
  refused([](MeanFieldNet& n) { n.sw2[1] = std::nan(""); });
  refused([](MeanFieldNet& n) { n.sb2 = {0}; });
  refused([](MeanFieldNet& n) { n.branch = 3; });
  refused([](MeanFieldNet& n) { n.q0 = {}; });
  refused([](MeanFieldNet& n) { n.q0 = {kInf}; });
  refused([](MeanFieldNet& n) { n.branch_scale = kInf; });
  refused([](MeanFieldNet& n) { n.input_variance = -1; });
}

}  // namespace
}  // namespace gradflow
