// The predictions against random networks of width 512, simulated here in f64 with loops of their own: no
// engine, no kernels, no formula shared with mean_field.cpp.
//
// Weights are uniform, not Gaussian: only their variance enters at large width. Compared is the mean over
// networks of |dz^1|^2 / |dz^(P-1)|^2, summed over the samples. Tolerance: 4 standard errors, estimated from
// the same networks (a false alarm in 16,000 runs; the seed is fixed anyway), plus 2 L / width, the order of
// the first finite-width correction: each layer shifts the next one's variance by O(1/width).
#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <vector>

#include "gradflow/layers/mean_field.h"

namespace gradflow {
namespace {

constexpr std::size_t kWidth = 512;
using Matrix = std::vector<double>;  // [samples, kWidth] or [kWidth out, kWidth in]

class Random {
 public:
  explicit Random(std::uint64_t seed) : state_(seed) {}
  double unit_variance() {  // uniform, mean 0, variance 1 (splitmix64)
    std::uint64_t x = (state_ += 0x9e3779b97f4a7c15u);
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    x ^= x >> 31;
    return (static_cast<double>(x >> 11) * 0x1p-53 - 0.5) * std::sqrt(12.0);
  }
  Matrix matrix(std::size_t rows, double scale) {
    Matrix m(rows * kWidth);
    for (double& v : m) v = scale * unit_variance();
    return m;
  }

 private:
  std::uint64_t state_;
};

double sum_squares(const Matrix& m) {
  double sum = 0;
  for (double v : m) sum += v * v;
  return sum;
}

double phi(PointwiseId act, double x) {
  if (act == PointwiseId::relu) return x > 0 ? x : 0;
  if (act == PointwiseId::tanh) return std::tanh(x);
  return act == PointwiseId::sigmoid ? 1 / (1 + std::exp(-x)) : x;
}
double phi_slope(PointwiseId act, double x) {
  if (act == PointwiseId::relu) return x > 0 ? 1 : 0;
  if (act == PointwiseId::tanh) return 1 / std::cosh(x) / std::cosh(x);
  return act == PointwiseId::sigmoid ? 1 / (2 + 2 * std::cosh(x)) : 1;
}

// y[s] += scale * W x[s]
void multiply_add(const Matrix& w, const Matrix& x, double scale, Matrix& y) {
  for (std::size_t s = 0; s < x.size() / kWidth; ++s)
    for (std::size_t o = 0; o < kWidth; ++o) {
      const double *row = &w[o * kWidth], *in = &x[s * kWidth];
      double a = 0, b = 0, c = 0, d = 0;
      for (std::size_t i = 0; i < kWidth; i += 4) {
        a += row[i] * in[i];
        b += row[i + 1] * in[i + 1];
        c += row[i + 2] * in[i + 2];
        d += row[i + 3] * in[i + 3];
      }
      y[s * kWidth + o] += scale * (a + b + c + d);
    }
}

// W^T dy[s]
Matrix multiply_back(const Matrix& w, const Matrix& dy) {
  Matrix dx(dy.size(), 0.0);
  for (std::size_t s = 0; s < dy.size() / kWidth; ++s)
    for (std::size_t o = 0; o < kWidth; ++o) {
      const double g = dy[s * kWidth + o];
      const double* row = &w[o * kWidth];
      double* out = &dx[s * kWidth];
      for (std::size_t i = 0; i < kWidth; ++i) out[i] += g * row[i];
    }
  return dx;
}

// [batch norm] -> phi -> W, and back. One unit of a network, with what its backward needs.
struct Unit {
  PointwiseId act;
  bool normalize;
  const Matrix* w;
  Matrix zhat;
  std::vector<double> deviation;

  Matrix forward(const Matrix& z) {
    zhat = z;
    const std::size_t samples = z.size() / kWidth;
    if (normalize) {
      deviation.assign(kWidth, 0.0);
      for (std::size_t i = 0; i < kWidth; ++i) {
        double mean = 0, square = 0;
        for (std::size_t s = 0; s < samples; ++s) mean += z[s * kWidth + i] / static_cast<double>(samples);
        for (std::size_t s = 0; s < samples; ++s) square += std::pow(z[s * kWidth + i] - mean, 2);
        deviation[i] = std::sqrt(square / static_cast<double>(samples));
        for (std::size_t s = 0; s < samples; ++s)
          zhat[s * kWidth + i] = (z[s * kWidth + i] - mean) / deviation[i];
      }
    }
    Matrix h = zhat, y(z.size(), 0.0);
    for (double& v : h) v = phi(act, v);
    multiply_add(*w, h, 1, y);
    return y;
  }

  Matrix backward(const Matrix& dy) const {
    Matrix d = multiply_back(*w, dy);
    for (std::size_t i = 0; i < d.size(); ++i) d[i] *= phi_slope(act, zhat[i]);
    if (!normalize) return d;
    const std::size_t samples = d.size() / kWidth;
    for (std::size_t i = 0; i < kWidth; ++i) {
      double mean = 0, along = 0;
      for (std::size_t s = 0; s < samples; ++s) {
        mean += d[s * kWidth + i] / static_cast<double>(samples);
        along += d[s * kWidth + i] * zhat[s * kWidth + i] / static_cast<double>(samples);
      }
      for (std::size_t s = 0; s < samples; ++s) {
        double& v = d[s * kWidth + i];
        v = (v - mean - along * zhat[s * kWidth + i]) / deviation[i];
      }
    }
    return d;
  }
};

// |dz^1|^2 / |dz^(P-1)|^2 of one random network on `samples` random inputs of mean square 1.
double simulate(const MeanFieldNet& net, std::size_t samples, std::uint64_t seed) {
  Random random(seed);
  std::vector<Matrix> w;
  for (double sw2 : net.sw2) w.push_back(random.matrix(kWidth, std::sqrt(sw2 / kWidth)));
  Matrix x = random.matrix(samples, 1);
  for (std::size_t s = 0; s < samples; ++s) {
    double square = 0;
    for (std::size_t i = 0; i < kWidth; ++i) square += x[s * kWidth + i] * x[s * kWidth + i];
    for (std::size_t i = 0; i < kWidth; ++i) x[s * kWidth + i] /= std::sqrt(square / kWidth);
  }
  std::vector<Unit> units;
  for (std::size_t k = 1; k < w.size(); ++k) units.push_back({net.act, net.batch_norm, &w[k], {}, {}});

  Matrix z(samples * kWidth, 0.0);
  multiply_add(w[0], x, 1, z);
  const std::size_t stride = net.residual ? static_cast<std::size_t>(net.branch) : 1, head = units.size() - 1;
  for (std::size_t u = 0; u < head; u += stride) {
    Matrix y = z;
    for (std::size_t k = 0; k < stride; ++k) y = units[u + k].forward(y);
    for (std::size_t i = 0; i < z.size(); ++i) z[i] = (net.residual ? z[i] : 0) + net.branch_scale * y[i];
  }
  units[head].forward(z);

  Matrix d = units[head].backward(random.matrix(samples, 1));
  const double top = sum_squares(d);
  for (std::size_t u = head; u > 0; u -= stride) {
    Matrix b = d;
    for (std::size_t k = stride; k-- > 0;) b = units[u - stride + k].backward(b);
    for (std::size_t i = 0; i < d.size(); ++i) d[i] = (net.residual ? d[i] : 0) + net.branch_scale * b[i];
  }
  return sum_squares(d) / top;
}

double predicted_square(const MeanFieldNet& net) {
  const auto p = predict_mean_field(net);
  return std::pow(10.0, 2 * (p.log10_gradient_relative.front() - p.log10_gradient_relative[p.q.size() - 2]));
}

struct Outcome {
  double mean, tolerance;  // of the simulated ratio relative to the prediction
};

Outcome compare(const MeanFieldNet& net, std::size_t samples, int nets) {
  const double expected = predicted_square(net);
  double sum = 0, squares = 0;
  for (int i = 0; i < nets; ++i) {
    const double r = simulate(net, samples, 0x5eed + static_cast<std::uint64_t>(i)) / expected;
    sum += r;
    squares += r * r;
  }
  const double mean = sum / nets;
  const double error = std::sqrt((squares / nets - mean * mean) / (nets - 1));
  return {mean, 4 * error + 2 * static_cast<double>(net.sw2.size()) / kWidth};
}

struct Case {
  const char* name;
  PointwiseId act;
  double sw2;
  bool batch_norm, residual;
  int branch;
};

void PrintTo(const Case& c, std::ostream* out) { *out << c.name; }

MeanFieldNet net_of(const Case& c) {
  MeanFieldNet net;
  net.act = c.act;
  net.batch_norm = c.batch_norm;
  net.residual = c.residual;
  net.branch = c.branch;
  net.sw2.assign(10, c.sw2);
  net.sw2.front() = 1;
  return net;
}

class MeanFieldMonteCarlo : public testing::TestWithParam<Case> {};

constexpr std::size_t kBatch = 16;  // small enough to tell a finite batch from an infinite one

TEST_P(MeanFieldMonteCarlo, RandomNetworksAgree) {
  MeanFieldNet net = net_of(GetParam());
  if (net.batch_norm) net.batch = kBatch;
  const Outcome o = net.batch_norm ? compare(net, kBatch, 5) : compare(net, 4, 16);
  RecordProperty("relative", std::to_string(o.mean));
  EXPECT_TRUE(std::abs(o.mean - 1) <= o.tolerance)
      << o.mean << " of the prediction, tolerance " << o.tolerance;
  EXPECT_LT(o.tolerance, 0.6) << "too noisy to say anything";
}

INSTANTIATE_TEST_SUITE_P(Families, MeanFieldMonteCarlo,
                         testing::Values(Case{"sigmoid", PointwiseId::sigmoid, 1, false, false, 1},
                                         Case{"tanh", PointwiseId::tanh, 2, false, false, 1},
                                         Case{"relu", PointwiseId::relu, 2, false, false, 1},
                                         Case{"residual1_tanh", PointwiseId::tanh, 1, false, true, 1},
                                         Case{"residual2_relu", PointwiseId::relu, 1, false, true, 2},
                                         Case{"norm_relu", PointwiseId::relu, 0.01, true, false, 1},
                                         Case{"norm_tanh", PointwiseId::tanh, 2, true, false, 1},
                                         Case{"norm_sigmoid", PointwiseId::sigmoid, 2, true, false, 1},
                                         Case{"norm_residual1_relu", PointwiseId::relu, 2, true, true, 1},
                                         Case{"norm_residual2_tanh", PointwiseId::tanh, 2, true, true, 2}),
                         [](const auto& entry) { return std::string(entry.param.name); });

// The comparison can fail: what holds for an infinite batch, or for half the variance, is refuted by it.
TEST(MeanFieldMonteCarloPower, WrongPredictionsAreRefuted) {
  MeanFieldNet net = net_of({"norm_relu", PointwiseId::relu, 2, true, false, 1});
  net.batch = kBatch;
  const Outcome right = compare(net, kBatch, 5);
  const double finite = predicted_square(net);
  net.batch = std::numeric_limits<double>::infinity();
  const double wrong = right.mean * finite / predicted_square(net);
  EXPECT_GT(std::abs(wrong - 1), right.tolerance * finite / predicted_square(net));

  MeanFieldNet tanh = net_of({"tanh", PointwiseId::tanh, 2, false, false, 1});
  const Outcome o = compare(tanh, 4, 16);
  const double at_two = predicted_square(tanh);
  tanh.sw2.assign(10, 1.5);
  EXPECT_GT(std::abs(o.mean * at_two / predicted_square(tanh) - 1),
            o.tolerance * at_two / predicted_square(tanh));
}

}  // namespace
}  // namespace gradflow
