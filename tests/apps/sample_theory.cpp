#include "apps/sample_theory.h"

#include <cmath>
#include <functional>
#include <numbers>

namespace gradflow::app {
namespace {

using Function = std::function<double(double)>;

// E f(sqrt(q) Z), Z standard normal, by the trapezoid rule.
double expect(double q, const Function& f) {
  double sum = 0;
  const double h = 0.02;
  for (double z = -10; z <= 10; z += h) sum += f(std::sqrt(q) * z) * std::exp(-z * z / 2);
  return sum * h / std::sqrt(2 * std::numbers::pi);
}

double phi(const std::string& activation, double x) {
  if (activation == "sigmoid") return 1 / (1 + std::exp(-x));
  return activation == "tanh" ? std::tanh(x) : std::max(x, 0.0);
}

double slope(const std::string& activation, double x) {
  const double y = phi(activation, x);
  if (activation == "sigmoid") return y * (1 - y);
  return activation == "tanh" ? 1 - y * y : x > 0 ? 1.0 : 0.0;
}

}  // namespace

double SampleTheory::end_to_end() const {
  double product = 1;
  for (const double f : factor) product *= f;
  return product;
}

SampleTheory sample_theory(const std::string& activation, const std::string& init, const std::string& norm,
                           bool residual, int depth) {
  SampleTheory theory;
  const double sw2 = init == "he" ? 2 : 1;
  theory.weight_variance = sw2;
  double q = sw2;
  for (int l = 1; l <= depth; ++l) {
    const double seen = norm == "bn" ? 1 : q;  // what the activation sees
    const double mean = expect(seen, [&](double x) { return phi(activation, x); });
    const double square = expect(seen, [&](double x) { return std::pow(phi(activation, x), 2); });
    const double slopes = expect(seen, [&](double x) { return std::pow(slope(activation, x), 2); });
    theory.q.push_back(q);
    if (l < depth) {
      double factor = norm == "bn" ? slopes / (square - mean * mean) : sw2 * slopes;
      if (residual) factor = 1 + (norm == "bn" ? sw2 * slopes / q : factor);
      theory.factor.push_back(std::sqrt(factor));
      theory.activation_std.push_back(std::sqrt(square - mean * mean));
    }
    if (residual) {
      q += norm == "bn" ? sw2 * (square - mean * mean) : sw2 * square;
    } else {
      q = sw2 * square;
    }
  }
  return theory;
}

}  // namespace gradflow::app
