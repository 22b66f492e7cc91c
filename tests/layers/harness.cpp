#include "layers/harness.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "gradflow/engine/device.h"
#include "gradflow/engine/random.h"
#include "gradflow/kernels/bf16.h"

namespace gradflow::test {
namespace {

std::vector<double> copy(const Tensor& t) {
  if (!t) return {};
  return {t.as<double>(), t.as<double>() + t.elements()};
}

// The signs of all inputs of ReLU and its like: equal on both sides of a difference means no kink between them.
std::vector<bool> signs_at_kinks(const Network& n) {
  std::vector<bool> signs;
  for (const Node& node : n.graph.nodes()) {
    const auto op = find_pointwise(node.layer->type());
    if (!op || !info_of(*op).negative_slope || *op == PointwiseId::identity) continue;
    const Tensor x = n.executor->value(node.inputs.front());
    for (std::size_t i = 0; i < x.elements(); ++i) signs.push_back(x.as<double>()[i] > 0);
  }
  return signs;
}

}  // namespace

std::vector<double> uniform_numbers(std::size_t count, double low, double high, std::uint64_t seed,
                                    std::string_view purpose) {
  std::vector<double> numbers(count);
  RandomStream(seed, purpose).fill_uniform(std::span(numbers), low, high);
  return numbers;
}

double number_at(const Tensor& t, std::size_t i) {
  if (t.dtype() == DType::bf16) return static_cast<double>(to_float(t.as<Bf16>()[i]));
  return t.dtype() == DType::f32 ? static_cast<double>(t.as<float>()[i]) : t.as<double>()[i];
}

void add_cotangent(Graph& graph, const std::string& name, ValueId v, std::uint64_t seed) {
  graph.add_loss(
      name,
      std::make_shared<toys::Cotangent>(uniform_numbers(graph.value(v).spec.elements(), -1, 1, seed, name)),
      {v});
}

Network::Network(Graph g, std::uint64_t seed, ExecutorOptions options)
    : device(open_device("cpu", 1)), graph(std::move(g)), parameters(*device, graph) {
  parameters.initialize({}, seed);  // states
  for (std::size_t p = 0; p < graph.parameters().size(); ++p) {
    const ParameterSpec& spec = graph.parameters()[p];
    const bool scale = spec.role == ParameterRole::scale;
    set_parameter(spec.name,
                  uniform_numbers(spec.shape.elements(), scale ? 0.5 : -1, scale ? 1.5 : 1, seed, spec.name));
  }
  executor.emplace(graph, parameters, nullptr, std::move(options));
  for (const Value& v : graph.values()) {
    if (v.producer != kNobody) continue;
    const Tensor t = executor->input(v.name);
    if (t.dtype() == DType::i32) {
      for (std::size_t i = 0; i < t.elements(); ++i)
        t.as<std::int32_t>()[i] = static_cast<std::int32_t>(i % 3);
    } else {
      std::ranges::copy(uniform_numbers(t.elements(), -1, 1, seed, v.name), t.as<double>());
    }
  }
}

double Network::loss() {
  executor->take_loss();
  executor->forward();
  const kernels::LossResult r = executor->take_loss();
  return r.loss_sum / static_cast<double>(std::max<std::uint64_t>(1, r.rows));
}

std::vector<double> Network::value(const std::string& name) const {
  return copy(executor->value(graph.find_value(name)));
}
std::vector<double> Network::gradient(const std::string& name) const {
  return copy(executor->gradient(graph.find_value(name)));
}
std::vector<double> Network::parameter_gradient(const std::string& name) const {
  return copy(executor->parameter_gradient(graph.find_parameter(name)));
}
void Network::set_parameter(const std::string& name, const std::vector<double>& numbers) {
  const Tensor& t = parameters.parameters()[static_cast<std::size_t>(graph.find_parameter(name))];
  ASSERT_EQ(numbers.size(), t.elements()) << name;
  std::ranges::copy(numbers, t.as<double>());
}

int check_gradients(Network& n, const GradientCheck& check) {
  n.executor->step();
  struct Target {
    std::string name;
    Tensor tensor;
    std::vector<double> gradient;
  };
  std::vector<Target> targets;
  for (std::size_t p = 0; p < n.graph.parameters().size(); ++p)
    targets.push_back({n.graph.parameters()[p].name, n.parameters.parameters()[p],
                       copy(n.executor->parameter_gradient(static_cast<ParameterId>(p)))});
  for (const ValueId v : n.executor->options().input_gradients)
    targets.push_back({n.graph.value(v).name, n.executor->value(v), copy(n.executor->gradient(v))});

  int compared = 0, kinks = 0;
  for (const Target& t : targets) {
    EXPECT_EQ(t.gradient.size(), t.tensor.elements()) << t.name << " has no gradient";
    double largest = 0;
    for (const double g : t.gradient) largest = std::fmax(largest, std::fabs(g));
    EXPECT_GE(largest, check.floor) << t.name << ": gradients too small to prove anything";
    const std::size_t stride =
        std::max<std::size_t>(1, t.gradient.size() / static_cast<std::size_t>(check.per_tensor));
    for (std::size_t i = 0; i < t.gradient.size(); i += stride) {
      double& element = t.tensor.as<double>()[i];
      const double kept = element;
      element = kept + check.step;
      const double above = n.loss();
      const auto signs = signs_at_kinks(n);
      element = kept - check.step;
      const double below = n.loss();
      const bool kink = signs != signs_at_kinks(n);
      element = kept;
      if (kink) {
        ++kinks;
        continue;
      }
      ++compared;
      const double slope = (above - below) / (2 * check.step);
      EXPECT_TRUE(std::fabs(slope - t.gradient[i]) <= check.tolerance * std::fmax(1.0, std::fabs(slope)))
          << t.name << "[" << i << "]: gradient " << t.gradient[i] << ", by differences " << slope;
    }
  }
  EXPECT_LE(kinks, compared / 10) << "too many elements lie at a kink";
  return compared;
}

}  // namespace gradflow::test
