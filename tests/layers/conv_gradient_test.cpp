// Gradients of He et al.'s networks at initialization, against an independent Monte-Carlo simulation (NumPy,
// f64, three seeds) of the same topologies: He initialization, white-noise images of 32x32x3, random labels,
// and z the output of a convolution, before batch norm. What plain networks with batch norm do (gradients
// grow toward the input by sqrt(pi / (pi - 1)) = 1.21 a layer) is Yang et al. 2019, "A Mean Field Theory of
// Batch Normalization".
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cmath>

#include "gradflow/engine/device.h"
#include "gradflow/engine/executor.h"
#include "gradflow/engine/random.h"
#include "gradflow/layers/models.h"

namespace gradflow {
namespace {

struct Profile {
  double growth = 0;    // of |dz| a layer, from the last convolution to the second
  double dz_ratio = 0;  // |dz| of the first convolution over the last one's
};

// The mean over seeds of the logarithms: one network's norms scatter by a factor.
Profile measure(Backend& device, const std::string& text, int seeds, std::int64_t batch) {
  const Model m =
      build_model(parse_model(text), {.batch = batch, .features = 3072, .classes = 10, .image = {32, 32, 3}});
  ParameterStore store(device, m.graph);
  ExecutorOptions options;
  for (const ParameterSpec& p : m.graph.parameters())
    if (p.name.find("conv") != std::string::npos && p.name.ends_with(".weight"))
      options.probes.push_back(
          {.target = ProbeTarget::gradient, .id = m.graph.find_value(p.name.substr(0, p.name.size() - 7))});
  Executor executor(m.graph, store, nullptr, options);
  const Tensor x = executor.input("x"), labels = executor.input("labels");
  Profile mean;
  for (int seed = 1; seed <= seeds; ++seed) {
    store.initialize(m.spec.initializer(), static_cast<std::uint64_t>(seed));
    RandomStream(static_cast<std::uint64_t>(seed), "white noise")
        .fill_normal(std::span(x.as<float>(), x.elements()), 0, 1);
    const RandomStream classes(static_cast<std::uint64_t>(seed), "labels");
    for (std::size_t i = 0; i < labels.elements(); ++i)
      labels.as<std::int32_t>()[i] = static_cast<std::int32_t>(classes.uniform(i) * 10);
    executor.step();
    const std::vector<ProbeReading> readings = executor.read_probes();
    const auto norm = [&](std::size_t i) { return std::log(readings[i].stats.norm()); };
    const std::size_t last = readings.size() - 1;
    mean.growth += (norm(1) - norm(last)) / static_cast<double>(last - 1) / seeds;
    mean.dz_ratio += (norm(0) - norm(last)) / seeds;
  }
  return {std::exp(mean.growth), std::exp(mean.dz_ratio)};
}

struct Expected {
  const char* text;
  double growth, dz_ratio;  // of the simulation
};

class GradientsAtTheStart : public testing::TestWithParam<Expected> {};

TEST_P(GradientsAtTheStart, AreThoseOfTheSimulation) {
  const std::unique_ptr<Backend> device = open_device("cpu");
  const Profile p = measure(*device, GetParam().text, 2, 16);
  std::printf("[          ] %s: growth %.3f a layer (simulated %.3f), first over last %.3g (%.3g)\n",
              GetParam().text, p.growth, GetParam().growth, p.dz_ratio, GetParam().dz_ratio);
  EXPECT_TRUE(std::fabs(p.growth - GetParam().growth) <= 0.015) << p.growth;
  EXPECT_TRUE(std::fabs(std::log(p.dz_ratio / GetParam().dz_ratio)) <= 0.6) << p.dz_ratio;
}

INSTANTIATE_TEST_SUITE_P(Networks, GradientsAtTheStart,
                         testing::Values(Expected{"plain:depth=20", 1.196, 15.1},
                                         Expected{"plain:depth=56", 1.191, 7.7e3},
                                         Expected{"resnet:depth=20", 1.108, 4.6},
                                         Expected{"resnet:depth=56", 1.060, 17.5},
                                         Expected{"resnet:depth=56,norm=none", 1.182, 9.3e3},
                                         Expected{"plain:depth=20,norm=none", 0.965, 0.55},
                                         Expected{"plain:depth=56,norm=none", 0.981, 0.35},
                                         Expected{"plain:depth=56,act=tanh", 1.093, 77.5},
                                         Expected{"plain:depth=56,act=sigmoid", 0.964, 0.031}));

}  // namespace
}  // namespace gradflow
