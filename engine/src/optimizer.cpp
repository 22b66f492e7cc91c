#include "gradflow/engine/optimizer.h"

#include <fmt/format.h>

#include <cmath>

#include "gradflow/engine/arena.h"
#include "gradflow/kernels/error.h"

namespace gradflow {

using kernels::OptimizerKind;

const char* name_of(OptimizerKind kind) noexcept {
  switch (kind) {
    case OptimizerKind::sgd: return "sgd";
    case OptimizerKind::nesterov: return "nesterov";
    case OptimizerKind::adam: return "adam";
    case OptimizerKind::adamw: return "adamw";
  }
  return "?";
}

namespace {

void require(bool ok, const char* what, double value, const char* right) {
  if (!ok) throw UserError(fmt::format("{} {}: it must be {}", what, value, right));
}

bool adaptive(OptimizerKind kind) { return kind == OptimizerKind::adam || kind == OptimizerKind::adamw; }

}  // namespace

// Updates take these numbers as f32, where a share just below 1 is 1 and a tiny epsilon 0. A rate that is infinite there
// makes a run diverge, which is noticed.
void check(const OptimizerConfig& c) {
  const auto share = [](double x) { return x >= 0 && x < 1 && static_cast<float>(x) < 1; };
  require(std::isfinite(c.learning_rate) && c.learning_rate >= 0, "learning rate", c.learning_rate, "finite and 0 or more");
  require(share(c.momentum), "momentum", c.momentum, "in [0, 1), also as f32");
  require(std::isfinite(c.weight_decay) && c.weight_decay >= 0, "weight decay", c.weight_decay, "finite and 0 or more");
  require(share(c.beta1), "beta1", c.beta1, "in [0, 1), also as f32");
  require(share(c.beta2), "beta2", c.beta2, "in [0, 1), also as f32");
  require(std::isfinite(c.epsilon) && static_cast<float>(c.epsilon) > 0, "epsilon", c.epsilon, "finite and above 0, also as f32");
  if (c.kind == OptimizerKind::nesterov) require(c.momentum > 0, "momentum", c.momentum, "above 0 for nesterov");
}

Optimizer::Optimizer(ParameterStore& parameters, const OptimizerConfig& c) : parameters_(&parameters), config_(c) {
  check(c);
  const bool first = adaptive(c.kind) || c.momentum > 0, second = adaptive(c.kind);
  std::size_t bytes = 0;
  std::vector<std::size_t> offsets;
  for (const Tensor& w : parameters.parameters()) {
    offsets.push_back(bytes);
    bytes += (w.bytes() + kArenaAlignment - 1) / kArenaAlignment * kArenaAlignment;
  }
  Backend& backend = parameters.backend();
  const std::size_t all = bytes * (static_cast<std::size_t>(first) + static_cast<std::size_t>(second));
  moments_ = DeviceMemory(backend, all);
  if (all) backend.zero(moments_.data(), all);
  const auto specs = parameters.parameters();
  for (std::size_t i = 0; i < specs.size(); ++i) {
    first_.push_back({first ? moments_.at(offsets[i]) : nullptr, specs[i].spec});
    second_.push_back({second ? moments_.at(bytes + offsets[i]) : nullptr, specs[i].spec});
  }
  scalars_ = DeviceMemory(backend, sizeof(kernels::OptimizerScalars));
  set_step(1);
}

void Optimizer::set_step(std::int64_t step, double learning_rate) {
  const auto narrow = [](double x) { return static_cast<float>(x); };
  kernels::OptimizerScalars s;
  s.learning_rate = narrow(learning_rate);
  s.weight_decay = narrow(config_.weight_decay);
  s.momentum = narrow(config_.momentum);
  s.beta1 = narrow(config_.beta1);
  s.beta2 = narrow(config_.beta2);
  s.epsilon = narrow(config_.epsilon);
  s.bias_correction1 = narrow(1 - std::pow(config_.beta1, static_cast<double>(step)));
  s.bias_correction2 = narrow(1 - std::pow(config_.beta2, static_cast<double>(step)));
  parameters_->backend().copy_in(scalars_.data(), &s, sizeof s);
}

}  // namespace gradflow
