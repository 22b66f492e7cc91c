// Statistics of every tensor of one forward and backward.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "apps/common/network.h"

namespace gradflow::app {

struct TensorReading {
  std::string name;   // "block07.linear", "block07.linear.weight"
  std::string layer;  // type of the layer that makes or owns it: "linear"
  Shape shape;
  Stats stats;
  std::vector<std::uint64_t> exponents;  // kExponentBins counts
  std::optional<double> dead;            // of a ReLU's output: share of units that never fire on this batch
};

struct Measurement {
  double loss = 0, accuracy = 0;
  // In the order of the layers, from the input.
  std::vector<TensorReading> activations, activation_gradients, parameters, parameter_gradients;
};

// All statistics and exponents of all tensors. Must be handed to the executor that measure() runs.
std::vector<ProbeRequest> measuring_probes(const Model& model);

// Runs forward and backward on what lies in the executor's inputs and reads the probes. The executor has
// no optimizer and was made with measuring_probes().
Measurement measure(Executor& executor);

// The binary exponents that occur, [smallest, largest]; none if every element is zero or not finite.
struct ExponentRange {
  int low, high;
};
std::optional<ExponentRange> exponent_range(const std::vector<std::uint64_t>& counts);

}  // namespace gradflow::app
