// What infinite-width theory says a random fully connected network does to its signal and its gradient.
//
// Pure mathematics in f64; knows no graph and no device. Random weights W ~ (0, sw2/fan_in), biases
// ~ (0, sb2), all independent; Z is a standard normal variable. For one sample (Poole et al. 2016,
// arXiv:1606.05340; Schoenholz et al. 2017, arXiv:1611.01232), with
//
//     m(q) = E phi(sqrt(q) Z)^2,   d(q) = E phi'(sqrt(q) Z)^2,
//
//   plain          z' = W phi(z)              q' = sw2 m(q) + sb2      |dz|^2/|dz'|^2 = sw2 d(q)
//   residual, 1    x' = x + a W phi(x)        q' = q + a^2 (sw2 m(q) + sb2)       1 + a^2 sw2 d(q)
//   residual, 2    x' = x + a W2 phi(W1 phi(x)),  u = sw2_1 m(q) + sb2_1:
//                                             q' = q + a^2 (sw2_2 m(u) + sb2_2)
//                                                              1 + a^2 sw2_1 d(q) sw2_2 d(u)
//
// (Yang & Schoenholz 2017, arXiv:1712.08969, for the residual ones). With batch normalization before
// phi and a batch whose samples are uncorrelated, with V the variance of phi over the batch,
//
//   plain          z' = W phi(BN z)           |dz|^2/|dz'|^2 = lambda (V sw2') / s
//   residual, 1    x' = x + a W phi(BN x)     s' = s + a^2 sw2 V,      1 + a^2 lambda V sw2 / s
//   residual, 2                               s' = s + a^2 sw2_2 V,    1 + a^2 lambda^2 V sw2_2 / s
//
// where s is the variance of the stream over the batch; between two inner layers of a plain net s = V sw2, so
// the factor is lambda alone: for ReLU pi/(pi-1) at infinite batch (Yang et al. 2019, arXiv:1902.08129).
// lambda at a finite batch is derived in mean_field_moments.cpp.
//
// The ratios are of mean squares over random networks; one narrow deep network scatters around them
// (log-normally: Hanin 2018, arXiv:1801.03744).
#pragma once

#include <limits>
#include <string>
#include <vector>

#include "gradflow/kernels/pointwise_ops.h"

namespace gradflow {

// Moments of an activation under z ~ N(0, q), q >= 0.
struct ActivationMoments {
  double mean = 0;         // E phi(z)
  double mean_square = 0;  // m(q) = E phi(z)^2
  double slope = 0;        // d(q) = E phi'(z)^2
  double variance() const noexcept { return mean_square - mean * mean; }
};
ActivationMoments activation_moments(PointwiseId act, double q);

// An activation behind batch normalization (scale 1, shift 0) over `batch` uncorrelated samples; batch may be
// infinite.
struct BatchNormMoments {
  double mean_square = 0;  // E phi(zhat_b)^2
  double variance = 0;     // E phi(zhat_b)^2 - E phi(zhat_b) phi(zhat_c), b != c; V above
  double growth = 0;       // lambda; NaN for fewer than 4 samples, where the expectation diverges
};
BatchNormMoments batch_norm_moments(PointwiseId act, double batch);

// Stem, blocks, head; weight layers are numbered 1..L from the input. The stem takes the raw input; every
// other weight layer takes phi (of the normalized, if batch_norm) of what is before it. In a residual
// net layers 2..L-1 form blocks of `branch` layers.
struct MeanFieldNet {
  PointwiseId act = PointwiseId::relu;
  bool batch_norm = false;
  bool residual = false;
  int branch = 1;                                          // weight layers in a residual block: 1 or 2
  double branch_scale = 1;                                 // a above
  double batch = std::numeric_limits<double>::infinity();  // samples behind one batch norm statistic
  std::vector<double> q0{1.0};  // mean square of the input features: one for all, or one per sample
  // Variance of an input feature over the batch, averaged over features; NaN: as the mean of q0. Only batch
  // norm asks for it.
  double input_variance = std::numeric_limits<double>::quiet_NaN();
  std::vector<double> sw2;  // Var(W) * fan_in of weight layers 1..L, L >= 2
  std::vector<double> sb2;  // variance of the biases of layers 1..L; empty: no biases
};

// Points are the places where the gradient is compared: the stem's output, each block's output (in a plain
// net: each linear layer's output), the logits. P = L, or 2 + (L-2)/branch in a residual net.
struct MeanFieldPrediction {
  std::vector<double> q;                        // [P] mean square of the stream z at the point
  std::vector<double> factor;                   // [P-1] |dL/dz^p| / |dL/dz^(p+1)|
  std::vector<double> gradient_norm_relative;   // [P] |dL/dz^p| / |dL/dz^P|; 0 or inf beyond f64's range
  std::vector<double> log10_gradient_relative;  // [P] the same as log10, never out of range
  // |dL/dW^1| / |dL/dW^L| of one sample, both fan-ins taken as equal (multiply by sqrt(fan_in_1 /
  // fan_in_L) if they are not). 1 for ReLU at any initialization: it hides vanishing.
  double weight_gradient_ratio = std::numeric_limits<double>::quiet_NaN();

  // Where an endlessly deep net of these inner layers ends up.
  double q_fixed = 0;      // q*; inf if the signal grows without bound
  double chi_fixed = 0;    // squared gradient factor of one more layer (block) there
  double depth_scale = 0;  // xi = 1/|ln chi*| layers (blocks): the squared norm changes by e; inf at chi* = 1
  std::string regime;      // one line in words
};

// Throws UserError if the description is not a network (sizes, negative variances, a branch that does
// not divide the inner layers).
MeanFieldPrediction predict_mean_field(const MeanFieldNet& net);

}  // namespace gradflow
