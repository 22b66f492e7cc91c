// Expectations of activations over Gaussian and over batch-normalized values.
#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>

#include "gradflow/kernels/error.h"
#include "gradflow/layers/mean_field.h"

namespace gradflow {
namespace {

using std::numbers::pi;

struct Value {
  double y, slope;
};

template <class Op>
Value evaluate(double x) {
  const double y = Op::template forward<ops::StdMath>(x);
  return {y, Op::template backward<ops::StdMath>(Op::saves == Saves::y ? y : x, 1.0)};
}

// Trapezoid over Z in [-12, 12] (beyond it the density is below 1e-32). On analytic integrands its error
// falls as exp(-2 pi a / step), a the distance of the nearest pole from the real axis; tanh(sqrt(q) Z) has
// one at pi / (2 sqrt(q)). The step below keeps that under 1e-20.
template <class Op>
ActivationMoments gaussian_quadrature(double q) {
  const double root = std::sqrt(q);
  const double step = 12.0 / std::ceil(12.0 / std::min(0.1, 0.2 / std::max(root, 1e-300)));
  const auto half = static_cast<long>(std::lround(12.0 / step));
  ActivationMoments sum;
  double weights = 0;
  for (long i = -half; i <= half; ++i) {
    const double z = static_cast<double>(i) * step;
    const double w = std::exp(-0.5 * z * z);
    const auto [y, slope] = evaluate<Op>(root * z);
    weights += w;
    sum.mean += w * y;
    sum.mean_square += w * y * y;
    sum.slope += w * slope * slope;
  }
  return {sum.mean / weights, sum.mean_square / weights, sum.slope / weights};
}

// Two coordinates (a, b) of a batch-normalized vector zhat = sqrt(B) u, where u is uniform on the unit sphere
// of the space orthogonal to (1,...,1): each has variance 1, their correlation is rho = -1/(B-1).
struct PairMoments {
  double y2 = 0, y11 = 0;    // E phi(a)^2, E phi(a) phi(b)
  double d2 = 0, d11 = 0;    // E phi'(a)^2, E phi'(a) phi'(b)
  double ad2 = 0, ad11 = 0;  // E a^2 phi'(a)^2, E a phi'(a) b phi'(b)
};

// In the plane of the two coordinates: a = r cos(t), b = r cos(t - arccos rho), t uniform, and
// r^2 = (B-1)(1 - e^(-x^2/(B-3))) with x of Rayleigh density x e^(-x^2/2) (r^2/(B-1) is Beta(1, (B-3)/2)
// distributed); r = x for an infinite batch. Trapezoid in t (periodic), Simpson in x.
template <class Op>
PairMoments sphere_quadrature(double batch) {
  constexpr int kRadii = 300, kAngles = 256;
  constexpr double kReach = 9;  // e^(-40) is left out
  const bool finite = std::isfinite(batch);
  const double apart = finite ? std::acos(-1 / (batch - 1)) : pi / 2;
  PairMoments sum;
  double weights = 0;
  for (int i = 1; i <= kRadii; ++i) {  // the weight is 0 at x = 0
    const double x = kReach * i / kRadii;
    const double w = (i == kRadii ? 1 : i % 2 ? 4 : 2) * x * std::exp(-0.5 * x * x);
    const double r = finite ? std::sqrt((batch - 1) * -std::expm1(-x * x / (batch - 3))) : x;
    for (int j = 0; j < kAngles; ++j) {
      const double t = 2 * pi * j / kAngles;
      const double a = r * std::cos(t), b = r * std::cos(t - apart);
      const auto [ya, da] = evaluate<Op>(a);
      const auto [yb, db] = evaluate<Op>(b);
      sum.y2 += w * ya * ya;
      sum.y11 += w * ya * yb;
      sum.d2 += w * da * da;
      sum.d11 += w * da * db;
      sum.ad2 += w * a * a * da * da;
      sum.ad11 += w * a * da * b * db;
    }
    weights += w * kAngles;
  }
  for (double* v : {&sum.y2, &sum.y11, &sum.d2, &sum.d11, &sum.ad2, &sum.ad11}) *v /= weights;
  return sum;
}

// The same in closed form for a piecewise linear op, a x + (1 - a) relu(x): its moments here are homogeneous of
// degree 0 or 2, so the sphere and the Gaussian agree (arc-cosine kernels, Cho & Saul 2009).
PairMoments piecewise_linear_pair(double a, double rho) {
  const double angle = std::acos(rho), b = (1 - a) * (1 - a);
  const double both = (pi - angle) / (2 * pi);                                        // P(x > 0, y > 0)
  const double product = (std::sqrt(1 - rho * rho) + rho * (pi - angle)) / (2 * pi);  // E relu(x) relu(y)
  const double square = (1 + a * a) / 2;
  const double mixed = a * a * rho + a * (1 - a) * rho + b * product;  // E x relu(y) = rho/2
  return {square, mixed, square, a + b * both, square, mixed};
}

PairMoments pair_moments(PointwiseId act, double batch) {
  const double rho = std::isfinite(batch) ? -1 / (batch - 1) : 0.0;
  if (const auto a = info_of(act).negative_slope) return piecewise_linear_pair(*a, rho);
  PairMoments moments;
  ops::All::visit(act, [&]<class Op>() { moments = sphere_quadrature<Op>(batch); });
  return moments;
}

}  // namespace

ActivationMoments activation_moments(PointwiseId act, double q) {
  if (!(q >= 0)) throw UserError("activation moments need a variance of at least 0");
  const PointwiseInfo info = info_of(act);
  if (const auto a = info.negative_slope)
    return {(1 - *a) * std::sqrt(q / (2 * pi)), q * (1 + *a * *a) / 2, (1 + *a * *a) / 2};
  // From `far` on the shape no longer matters. An activation that saturates is a step and its derivative a
  // spike: the means no longer change to 4 digits, and the slope falls as 1/sqrt(q). One that does not is a
  // ramp: what it differs by lies near 0, where the density is 1/sqrt(2 pi q).
  const double far = info.saturates ? 1e8 : 2500;
  ActivationMoments moments;
  ops::All::visit(act, [&]<class Op>() { moments = gaussian_quadrature<Op>(std::min(q, far)); });
  if (q <= far) return moments;
  const double thinner = std::sqrt(far / q);
  if (info.saturates) return {moments.mean, moments.mean_square, moments.slope * thinner};
  return {std::sqrt(q / (2 * pi)) + (moments.mean - std::sqrt(far / (2 * pi))) * thinner,
          q / 2 + (moments.mean_square - far / 2) * thinner, 0.5 + (moments.slope - 0.5) * thinner};
}

// lambda(B) = sw2 E|J^T D v|^2 / |v|^2 between two inner layers, where D = diag phi'(zhat) and
// J = (P - u u^T)/s is the derivative of batch norm: P = I - 1 1^T/B, zhat = sqrt(B) u, s^2 = |Pz|^2/B.
// The batch of one unit is z = N(0, sw2 (V I + c 1 1^T)) by the symmetry of uncorrelated samples, so
//   * u is uniform on its sphere, independent of s; |Pz|^2 = sw2 V chi^2_(B-1); E 1/s^2 = B / ((B-3) sw2 V);
//   * v, a gradient that came through the batch norm above, is orthogonal to 1 and, again by symmetry,
//     isotropic there: E v v^T = P |v|^2 / (B-1).
// So E|(P - uu^T) D v|^2/|v|^2 = E tr[(P - uu^T) D P D]/(B-1), which multiplied out in the pair moments is
//   (1 - 1/B) [ d2 + (d11 - ad2 + ad11)/(B-1) ], and
//   lambda(B) = (B-1)/(B-3) [ d2 + (d11 - ad2 + ad11)/(B-1) ] / V,   V = y2 - y11.
// Linear: (B-2)/(B-3). B -> inf: E phi'^2 / Var phi.
BatchNormMoments batch_norm_moments(PointwiseId act, double batch) {
  if (!(batch >= 2)) throw UserError("batch normalization needs at least 2 samples");
  constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
  if (batch < 4) return {kNaN, kNaN, kNaN};
  const PairMoments p = pair_moments(act, batch);
  const double variance = p.y2 - p.y11;
  if (!std::isfinite(batch)) return {p.y2, variance, p.d2 / variance};
  const double spread = p.d2 + (p.d11 - p.ad2 + p.ad11) / (batch - 1);
  return {p.y2, variance, (batch - 1) / (batch - 3) * spread / variance};
}

}  // namespace gradflow
