// The engine's own gradients at initialization against the mean-field prediction, in networks wide enough for
// it: the slope of log |dL/dz| against depth.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cmath>
#include <memory>
#include <ostream>
#include <string>

#include "gradflow/engine/device.h"
#include "gradflow/engine/executor.h"
#include "gradflow/engine/random.h"
#include "gradflow/layers/models.h"
#include "mean_field_tables.h"

namespace gradflow {
namespace {

constexpr int kWideDepth = 16, kWideWidth = 1024, kWideBatch = 16;

struct WideNet {
  const char* text;
  PointwiseId act;
  double sw2;
  bool residual;
};
void PrintTo(const WideNet& net, std::ostream* out) { *out << net.text; }

class MeanFieldNetworks : public testing::TestWithParam<WideNet> {};

TEST_P(MeanFieldNetworks, PredictTheSlopeOfTheGradient) {
  const WideNet& net = GetParam();
  MeanFieldNet predicted = net_of(net.act, kWideDepth, net.sw2);
  predicted.residual = net.residual;
  const MeanFieldPrediction p = predict_mean_field(predicted);
  const std::size_t last =
      p.factor.size() - 1;  // the head has another width: the points before it are compared
  const double slope = (p.log10_gradient_relative[0] - p.log10_gradient_relative[last]) * std::log(10.0) /
                       static_cast<double>(last);

  const std::unique_ptr<Backend> device = open_device("cpu");
  const Model m =
      build_model(parse_model(fmt::format("mlp:depth={},width={},{}", kWideDepth, kWideWidth, net.text)),
                  {.batch = kWideBatch, .features = kWideWidth, .classes = 10});
  ParameterStore store(*device, m.graph);
  store.initialize(m.spec.initializer(), 1);
  ExecutorOptions options;
  for (const std::string& point :
       {std::string("stem.linear"), fmt::format("block{:02d}.{}", last, net.residual ? "add" : "linear")})
    options.probes.push_back({.target = ProbeTarget::gradient, .id = m.graph.find_value(point)});
  Executor executor(m.graph, store, nullptr, options);
  const Tensor x = executor.input("x"), labels = executor.input("labels");
  RandomStream(1, "white noise").fill_normal(std::span(x.as<float>(), x.elements()), 0, 1);
  for (std::size_t i = 0; i < labels.elements(); ++i)
    labels.as<std::int32_t>()[i] = static_cast<std::int32_t>(i % 10);
  executor.step();
  const std::vector<ProbeReading> norms = executor.read_probes();
  const double measured =
      (std::log(norms[0].stats.norm()) - std::log(norms[1].stats.norm())) / static_cast<double>(last);
  std::printf("[          ] %s: %.4f a layer, predicted %.4f\n", net.text, std::exp(measured),
              std::exp(slope));

  // The squared norm scatters by a variance of about 5/width a layer (ReLU, whose samples soon are alike, so
  // that a batch averages nothing; less for the others), its logarithm's half by sqrt(5/1024)/2 = 0.035, and
  // 14 layers' mean by 0.0094. Three times that.
  EXPECT_TRUE(std::fabs(measured - slope) <= 0.028) << measured << " beside " << slope;
}

INSTANTIATE_TEST_SUITE_P(Wide, MeanFieldNetworks,
                         testing::Values(WideNet{"act=sigmoid,init=xavier", PointwiseId::sigmoid, 1, false},
                                         WideNet{"act=relu,init=xavier", PointwiseId::relu, 1, false},
                                         WideNet{"act=tanh,init=he", PointwiseId::tanh, 2, false},
                                         WideNet{"act=relu,init=he,skip=on", PointwiseId::relu, 2, true}));

}  // namespace
}  // namespace gradflow
