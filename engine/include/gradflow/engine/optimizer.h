// Optimizer: the moments of every parameter and the hyperparameters, in device memory.
//
// The arithmetic is the backend's (kernels::OptimizerKind documents the formulas); a plan places the
// updates. Learning rate and bias corrections are written to device memory before a step, so a
// recorded step sees new values.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "gradflow/engine/parameters.h"

namespace gradflow {

struct OptimizerConfig {
  kernels::OptimizerKind kind = kernels::OptimizerKind::sgd;
  double learning_rate = 0.1;  // base rate; a schedule may set another before each step
  double momentum = 0;         // sgd, nesterov (which needs one > 0)
  double weight_decay = 0;
  double beta1 = 0.9, beta2 = 0.999, epsilon = 1e-8;  // adam, adamw
};

const char* name_of(kernels::OptimizerKind kind) noexcept;

// UserError for a rate, momentum or decay that is negative, NaN or out of range.
void check(const OptimizerConfig& config);

class Optimizer {
 public:
  // UserError if check(config) says so.
  Optimizer(ParameterStore& parameters, const OptimizerConfig& config);

  const OptimizerConfig& config() const noexcept { return config_; }
  ParameterStore& parameters() const noexcept { return *parameters_; }

  // Before every step: the rate to use and the step's number, counted from 1 (Adam's bias correction).
  void set_step(std::int64_t step, double learning_rate);
  void set_step(std::int64_t step) { set_step(step, config_.learning_rate); }

  const kernels::OptimizerScalars* scalars() const noexcept { return scalars_.as<kernels::OptimizerScalars>(); }
  // One per parameter; null data where the kind keeps none.
  std::span<const Tensor> first_moments() const noexcept { return first_; }
  std::span<const Tensor> second_moments() const noexcept { return second_; }

 private:
  ParameterStore* parameters_;
  OptimizerConfig config_;
  DeviceMemory moments_, scalars_;
  std::vector<Tensor> first_, second_;
};

}  // namespace gradflow
