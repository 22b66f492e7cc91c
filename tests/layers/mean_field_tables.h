// What the mean-field tests share: comparison with typed tables, and the networks of the tables.
//
// The tables were computed beforehand in another language (Python, f64, quadrature by trapezoid over 4001
// points; finite-batch values by Monte Carlo) and rounded to the digits typed. A tolerance of half a
// unit in the last typed digit allows for that rounding and nothing else.
#pragma once

#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <limits>
#include <string>

#include "gradflow/layers/mean_field.h"

namespace gradflow {

inline constexpr double kInf = std::numeric_limits<double>::infinity();
inline constexpr std::array<int, 4> kDepths{10, 20, 50, 100};

// NaN-safe: fails unless |value - expected| <= tolerance.
inline void expect_within(double value, double expected, double tolerance, const std::string& what) {
  if (std::isinf(expected)) {
    EXPECT_EQ(value, expected) << what;
    return;
  }
  EXPECT_TRUE(std::abs(value - expected) <= tolerance)
      << what << ": " << value << ", table " << expected << ", tolerance " << tolerance;
}

// `digits` significant digits were printed.
inline void expect_digits(double value, double expected, int digits, const std::string& what) {
  const double unit = expected == 0
                          ? std::pow(10.0, -digits)
                          : std::pow(10.0, std::floor(std::log10(std::abs(expected))) - (digits - 1));
  expect_within(value, expected, 0.51 * unit, what);
}

inline MeanFieldNet net_of(PointwiseId act, int layers, double sw2) {
  MeanFieldNet net;
  net.act = act;
  net.sw2.assign(static_cast<std::size_t>(layers), sw2);
  return net;
}

// A residual net whose stem passes the input's mean square on: the stream starts at 1.
inline MeanFieldNet residual_net(PointwiseId act, int blocks, int branch, double sw2) {
  MeanFieldNet net = net_of(act, blocks * branch + 2, sw2);
  net.sw2.front() = 1;
  net.residual = true;
  net.branch = branch;
  return net;
}

// |dx^0| / |dx^blocks|: the head left out.
inline double stream_ratio(const MeanFieldPrediction& p) {
  const std::size_t top = p.q.size() - 2;
  return std::pow(10.0, p.log10_gradient_relative.front() - p.log10_gradient_relative[top]);
}

}  // namespace gradflow
