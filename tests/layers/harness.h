// Networks in f64 on the host, run through the executor, for comparing with what mathematics says.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "engine/toy_layers.h"
#include "gradflow/engine/executor.h"

namespace gradflow::test {

// `count` numbers, equally distributed in [low, high], by (seed, purpose).
std::vector<double> uniform_numbers(std::size_t count, double low, double high, std::uint64_t seed,
                                    std::string_view purpose);

// Element i of a tensor of f32, bf16 or f64 numbers on the host.
double number_at(const Tensor& t, std::size_t i);

// A loss that makes random signed numbers the gradient arriving at v: with a gradient of ones, errors that
// cancel in a sum would stay hidden.
void add_cotangent(Graph& graph, const std::string& name, ValueId v, std::uint64_t seed);

// A graph with its parameters and an executor that keeps every tensor. Floating-point inputs are drawn from
// (seed, name) in [-1, 1], labels count up; parameters are drawn in [-1, 1] too, scales in [0.5, 1.5].
struct Network {
  explicit Network(Graph g, std::uint64_t seed = 1, ExecutorOptions options = {.retain = true});

  std::unique_ptr<Backend> device;
  Graph graph;
  ParameterStore parameters;
  std::optional<Executor> executor;

  double loss();  // of a forward pass
  std::vector<double> value(const std::string& name) const;
  std::vector<double> gradient(const std::string& name) const;
  std::vector<double> parameter_gradient(const std::string& name) const;
  void set_parameter(const std::string& name, const std::vector<double>& numbers);
};

struct GradientCheck {
  double step =
      1e-5;  // central differences: truncation step^2 f'''/6 ~ 2e-11 f''', rounding 1e-16 * sum / step
  double tolerance =
      2e-7;  // of max(1, |gradient|): leaves four digits for f''' and for sums of some hundred terms
  double floor = 1e-2;  // the largest gradient of every tensor must reach this, else the check proves nothing
  int per_tensor = 60;  // elements tried of each
};

// Compares every parameter's and every floating-point input's gradient with differences of the loss. The
// network must ask for the gradients of its inputs. An element is left out (and counted) where a ReLU input
// changes its sign between the two sides: there the loss has a kink. Returns the number compared.
int check_gradients(Network& network, const GradientCheck& check = {});

}  // namespace gradflow::test
