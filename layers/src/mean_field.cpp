#include "gradflow/layers/mean_field.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numbers>
#include <numeric>

#include "gradflow/kernels/error.h"

namespace gradflow {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

void check(const MeanFieldNet& net) {
  const std::size_t layers = net.sw2.size();
  if (layers < 2) throw UserError("mean-field prediction: a network has at least 2 weight layers");
  if (!net.sb2.empty() && net.sb2.size() != layers)
    throw UserError(
        fmt::format("mean-field prediction: {} bias variances for {} weight layers", net.sb2.size(), layers));
  if (net.residual && net.branch != 1 && net.branch != 2)
    throw UserError(fmt::format("mean-field prediction: a branch has 1 or 2 layers, not {}", net.branch));
  if (net.residual && (layers - 2) % static_cast<std::size_t>(net.branch) != 0)
    throw UserError(fmt::format("mean-field prediction: {} inner layers do not form blocks of {}", layers - 2,
                                net.branch));
  if (net.q0.empty()) throw UserError("mean-field prediction: the input has no mean square");
  const auto negative = [](double v) { return !(v >= 0) || !std::isfinite(v); };
  if (std::ranges::any_of(net.sw2, negative) || std::ranges::any_of(net.sb2, negative) ||
      std::ranges::any_of(net.q0, negative) || !std::isfinite(net.branch_scale) || net.input_variance < 0)
    throw UserError("mean-field prediction: variances must be finite and at least 0");
}

double bias(const MeanFieldNet& net, std::size_t layer) { return net.sb2.empty() ? 0.0 : net.sb2[layer]; }

double mean(const std::vector<double>& v) {
  return std::accumulate(v.begin(), v.end(), 0.0) / static_cast<double>(v.size());
}

// What one sample (or, with batch norm, the batch) meets: point by point, stem first.
struct Chain {
  std::vector<double> q;        // [P]
  std::vector<double> factor2;  // [P-1] squared factor from point p+1 back to p
};

// One step without normalization, through weight layers k (and k + 1 in a two-layer branch), counted from 0.
void step_free(const MeanFieldNet& net, std::size_t k, bool block, Chain& chain) {
  const double q = chain.q.back();
  const auto at = activation_moments(net.act, q);
  const double inner = net.sw2[k] * at.mean_square + bias(net, k);
  const double back = net.sw2[k] * at.slope;
  if (!block) {
    chain.q.push_back(inner);
    chain.factor2.push_back(back);
    return;
  }
  const double a2 = net.branch_scale * net.branch_scale;
  if (net.branch == 1) {
    chain.q.push_back(q + a2 * inner);
    chain.factor2.push_back(1 + a2 * back);
    return;
  }
  const auto second = activation_moments(net.act, inner);
  chain.q.push_back(q + a2 * (net.sw2[k + 1] * second.mean_square + bias(net, k + 1)));
  chain.factor2.push_back(1 + a2 * back * net.sw2[k + 1] * second.slope);
}

// The same with batch norm; `s` is the variance of the stream over the batch.
void step_normalized(const MeanFieldNet& net, const BatchNormMoments& bn, std::size_t k, bool block,
                     double& s, Chain& chain) {
  const std::size_t last = block ? k + static_cast<std::size_t>(net.branch) - 1 : k;
  const double inner = net.sw2[last] * bn.mean_square + bias(net, last);
  const double inner_s = net.sw2[last] * bn.variance;
  // Each further batch norm inside the branch divides by what the layer before it multiplied by.
  const double back = std::pow(bn.growth, static_cast<double>(last - k + 1)) * inner_s / s;
  if (!block) {
    chain.q.push_back(inner);
    chain.factor2.push_back(back);
    s = inner_s;
    return;
  }
  const double a2 = net.branch_scale * net.branch_scale;
  chain.q.push_back(chain.q.back() + a2 * inner);
  chain.factor2.push_back(1 + a2 * back);
  s += a2 * inner_s;
}

Chain run(const MeanFieldNet& net, double q0, const BatchNormMoments* bn) {
  const std::size_t layers = net.sw2.size();
  const std::size_t stride = net.residual ? static_cast<std::size_t>(net.branch) : 1;
  Chain chain;
  chain.q.push_back(net.sw2[0] * q0 + bias(net, 0));
  double s = net.sw2[0] * (std::isnan(net.input_variance) ? q0 : net.input_variance);
  for (std::size_t k = 1; k < layers;) {
    const bool block = net.residual && k + 1 < layers;
    if (bn)
      step_normalized(net, *bn, k, block, s, chain);
    else
      step_free(net, k, block, chain);
    k += block ? stride : 1;
  }
  return chain;
}

// The largest solution of q = sw2 m(q) + sb2 for a bounded activation: the map lies above q to its left.
double bounded_fixed_point(PointwiseId act, double sw2, double sb2) {
  double low = 0, high = sw2 + sb2;
  for (int i = 0; i < 200 && high > low; ++i) {
    const double middle = (low + high) / 2;
    if (middle == low || middle == high) break;
    (sw2 * activation_moments(act, middle).mean_square + sb2 > middle ? low : high) = middle;
  }
  return high;
}

// The solution of q = sw2 m(q) + sb2 that an unbounded activation reaches from `start`: the nearest one above,
// if the map leads up from there, or else the nearest below. Infinity if there is none above.
double unbounded_fixed_point(PointwiseId act, double sw2, double sb2, double start) {
  constexpr double kLargest = 1e12;
  const auto rises = [&](double q) { return sw2 * activation_moments(act, q).mean_square + sb2 > q; };
  double low = 0, high = start;
  if (rises(start)) {
    for (high = std::max(1.0, 2 * start); rises(high); high *= 2)
      if (high > kLargest) return kInfinity;
    low = start;
  }
  for (int i = 0; i < 100 && high > low; ++i) {
    const double middle = (low + high) / 2;
    if (middle == low || middle == high) break;
    (rises(middle) ? low : high) = middle;
  }
  return high;
}

// m(q) = gain q: piecewise linear activations.
double homogeneous_fixed_point(double gain, double sw2, double sb2, double start) {
  const double ratio = sw2 * gain;
  if (std::abs(ratio - 1) < 1e-12) return sb2 > 0 ? kInfinity : start;
  return ratio > 1 ? kInfinity : sb2 / (1 - ratio);
}

bool homogeneous(PointwiseId act) { return info_of(act).negative_slope.has_value(); }

void plain_limit(const MeanFieldNet& net, double start, MeanFieldPrediction& out) {
  const std::size_t k = std::min(net.sw2.size() / 2, net.sw2.size() - 1);  // an inner layer if there is one
  const double sw2 = net.sw2[k], sb2 = bias(net, k);
  if (homogeneous(net.act)) {
    const double slope = activation_moments(net.act, 1).slope;
    out.q_fixed = homogeneous_fixed_point(slope, sw2, sb2, start);
    out.chi_fixed = sw2 * slope;
  } else {
    // An activation with phi(0) = 0 and slope d(0) at 0 has q* = 0 up to sw2 d(0) = 1.
    const auto origin = activation_moments(net.act, 0);
    const bool collapses = sb2 == 0 && origin.mean_square == 0 && sw2 * origin.slope <= 1;
    if (info_of(net.act).saturates) {
      out.q_fixed = collapses ? 0.0 : bounded_fixed_point(net.act, sw2, sb2);
    } else {
      out.q_fixed = unbounded_fixed_point(net.act, sw2, sb2, start);
      if (collapses && out.q_fixed < 1e-12 * start) out.q_fixed = 0;  // halved down to nothing
    }
    out.chi_fixed = sw2 * activation_moments(net.act, out.q_fixed).slope;
  }
}

void residual_limit(const MeanFieldNet& net, double start, MeanFieldPrediction& out) {
  const double a2 = net.branch_scale * net.branch_scale;
  double gain = a2;  // squared gain of a branch in the limit; 0 where phi saturates or batch norm divides
  if (net.batch_norm || info_of(net.act).saturates) gain = 0;
  const std::size_t k = std::min<std::size_t>(1, net.sw2.size() - 1);
  const std::size_t last = std::min(k + static_cast<std::size_t>(net.branch) - 1, net.sw2.size() - 1);
  for (std::size_t i = k; i <= last; ++i) gain *= net.sw2[i] * activation_moments(net.act, 1e30).slope;
  out.chi_fixed = 1 + gain;
  out.q_fixed = a2 > 0 ? kInfinity : start;
}

std::string regime_of(const MeanFieldNet& net, const MeanFieldPrediction& p) {
  if (net.batch_norm && net.batch < 4)
    return "no prediction: behind batch norm the mean square gradient is infinite for fewer than 4 samples";
  const double per_layer = std::sqrt(p.chi_fixed);
  const char* unit = net.residual ? "block" : "layer";
  if (std::abs(p.chi_fixed - 1) < 1e-9) {
    if (!net.residual)
      return net.batch_norm ? "level: batch norm of a linear net at infinite batch"
                            : "critical: at most polynomial in depth";
    if (net.branch_scale == 0) return "level: the branches are switched off";
    return net.batch_norm ? "grows polynomially with depth" : "grows more slowly than any exponential";
  }
  if (p.chi_fixed < 1) return fmt::format("vanishes exponentially: {:.3g}x a {} (ordered)", per_layer, unit);
  return fmt::format("explodes exponentially: {:.3g}x a {}{}", per_layer, unit,
                     net.residual || net.batch_norm ? "" : " (chaotic)");
}

}  // namespace

MeanFieldPrediction predict_mean_field(const MeanFieldNet& net) {
  check(net);
  MeanFieldPrediction out;
  BatchNormMoments bn;
  if (net.batch_norm) bn = batch_norm_moments(net.act, net.batch);

  // Batch norm sees the whole batch at once; without it every sample goes its own way and the squares add up.
  std::vector<double> starts = net.q0;
  if (net.batch_norm) starts = {mean(net.q0)};
  std::vector<std::vector<double>> log_squares;  // [sample][point], natural log of |dz^p|^2 / |dz^P|^2
  for (double q0 : starts) {
    const Chain chain = run(net, q0, net.batch_norm ? &bn : nullptr);
    const std::size_t points = chain.q.size();
    if (out.q.empty()) out.q.assign(points, 0.0);
    std::vector<double> logs(points, 0.0);
    for (std::size_t p = points - 1; p-- > 0;) logs[p] = logs[p + 1] + std::log(chain.factor2[p]);
    for (std::size_t p = 0; p < points; ++p) out.q[p] += chain.q[p] / static_cast<double>(starts.size());
    log_squares.push_back(std::move(logs));
  }

  const std::size_t points = out.q.size();
  std::vector<double> log_mean(points);  // log of the mean over samples, the largest taken out first
  for (std::size_t p = 0; p < points; ++p) {
    double top = -kInfinity;
    for (const auto& logs : log_squares) top = std::max(top, logs[p]);
    double sum = 0;
    for (const auto& logs : log_squares) sum += std::exp(logs[p] - top);
    log_mean[p] = std::isfinite(top) ? top + std::log(sum / static_cast<double>(starts.size())) : top;
    if (std::isnan(log_squares.front()[p])) log_mean[p] = log_squares.front()[p];
  }
  for (std::size_t p = 0; p + 1 < points; ++p)
    out.factor.push_back(std::exp((log_mean[p] - log_mean[p + 1]) / 2));
  for (double l : log_mean) {
    out.gradient_norm_relative.push_back(std::exp(l / 2));
    out.log10_gradient_relative.push_back(l / 2 / std::numbers::ln10);
  }

  const double last_square =
      net.batch_norm ? bn.mean_square : activation_moments(net.act, out.q[points - 2]).mean_square;
  out.weight_gradient_ratio = out.gradient_norm_relative.front() * std::sqrt(mean(net.q0) / last_square);

  if (net.residual) {
    residual_limit(net, out.q.front(), out);
  } else if (net.batch_norm) {
    const std::size_t k = net.sw2.size() / 2;
    out.q_fixed = net.sw2[k] * bn.mean_square + bias(net, k);
    out.chi_fixed = bn.growth;
  } else {
    plain_limit(net, out.q.front(), out);
  }
  out.depth_scale = std::abs(out.chi_fixed - 1) < 1e-12 ? kInfinity : 1 / std::abs(std::log(out.chi_fixed));
  out.regime = regime_of(net, out);
  return out;
}

}  // namespace gradflow
