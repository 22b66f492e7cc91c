#include "gradflow/engine/parameters.h"

#include <fmt/format.h>

#include <cmath>
#include <vector>

#include "orthogonal.h"
#include "gradflow/engine/arena.h"
#include "gradflow/engine/random.h"
#include "gradflow/kernels/error.h"

namespace gradflow {

const char* name_of(Initializer::Kind kind) noexcept {
  switch (kind) {
    case Initializer::Kind::lecun: return "lecun";
    case Initializer::Kind::xavier: return "xavier";
    case Initializer::Kind::he: return "he";
    case Initializer::Kind::torch: return "torch";
    case Initializer::Kind::orthogonal: return "orthogonal";
  }
  return "?";
}

double Initializer::scaled_variance(const ParameterSpec& weight) const {
  const double in = static_cast<double>(weight.fan_in), out = static_cast<double>(weight.fan_out);
  const double g2 = gain * gain * weight.factor * weight.factor;
  switch (kind) {
    case Kind::lecun: return g2;
    case Kind::xavier: return g2 * 2 * in / (in + out);
    case Kind::he: return g2 * 2;
    case Kind::torch: return g2 / 3;
    case Kind::orthogonal: return g2 * std::fmin(1.0, in / out);  // unit rows, or unit columns of a tall matrix
  }
  return 0;
}

double Initializer::bias_variance(const ParameterSpec& weight) const {
  return kind == Kind::torch ? 1.0 / (3 * static_cast<double>(weight.fan_in)) : 0.0;
}

ParameterStore::ParameterStore(Backend& backend, const Graph& graph)
    : backend_(&backend), dtype_(graph.dtype()),
      parameter_specs_(graph.parameters().begin(), graph.parameters().end()),
      state_specs_(graph.states().begin(), graph.states().end()) {
  if (!backend.supports(dtype_))
    throw UserError(fmt::format("{} does not compute in {}", backend.info().name, name_of(dtype_)));
  std::size_t bytes = 0;
  std::vector<std::size_t> offsets;
  const auto reserve = [&](const TensorSpec& spec) {
    offsets.push_back(bytes);
    bytes += (spec.bytes() + kArenaAlignment - 1) / kArenaAlignment * kArenaAlignment;
  };
  const DType type = graph.parameter_dtype();
  for (const auto& p : parameter_specs_) reserve({p.shape, type});
  for (const auto& s : state_specs_) reserve(s.spec);
  for (const auto& p : parameter_specs_)
    if (has_copy(graph, p)) reserve({p.shape, dtype_});
  memory_ = DeviceMemory(backend, bytes);
  if (bytes) backend.zero(memory_.data(), bytes);
  std::size_t next_copy = parameter_specs_.size() + state_specs_.size();
  for (std::size_t i = 0; i < parameter_specs_.size(); ++i) {
    const ParameterSpec& p = parameter_specs_[i];
    parameters_.push_back({memory_.at(offsets[i]), {p.shape, type}});
    operands_.push_back(has_copy(graph, p) ? Tensor{memory_.at(offsets[next_copy++]), {p.shape, dtype_}}
                                           : parameters_.back());
  }
  for (std::size_t i = 0; i < state_specs_.size(); ++i)
    states_.push_back({memory_.at(offsets[parameter_specs_.size() + i]), state_specs_[i].spec});
}

namespace {

// The same f32 values whatever the storage type, so an f64 network is the f32 one computed more exactly.
std::vector<float> draw(const Initializer& init, const ParameterSpec& p, std::uint64_t seed) {
  std::vector<float> w(p.shape.elements());
  const RandomStream random(seed, p.name);
  const double unit = 1 / std::sqrt(static_cast<double>(p.fan_in));
  if (p.role == ParameterRole::bias) {
    if (init.kind == Initializer::Kind::torch) random.fill_uniform(std::span(w), -unit, unit);
  } else if (init.kind == Initializer::Kind::torch) {
    const double bound = init.gain * p.factor * unit;
    random.fill_uniform(std::span(w), -bound, bound);
  } else if (init.kind == Initializer::Kind::orthogonal) {
    random.fill_normal(std::span(w), 0, 1);
    const std::size_t rows = static_cast<std::size_t>(p.shape.rank() ? p.shape[0] : 1);
    orthonormalize(w, rows, w.size() / rows, init.gain * p.factor);
  } else {
    random.fill_normal(std::span(w), 0, unit * std::sqrt(init.scaled_variance(p)));
  }
  return w;
}

}  // namespace

void ParameterStore::initialize(const Initializer& init, std::uint64_t seed) {
  for (std::size_t i = 0; i < parameters_.size(); ++i) {
    const ParameterSpec& p = parameter_specs_[i];
    const Tensor& t = parameters_[i];
    if (p.role == ParameterRole::scale || p.role == ParameterRole::shift) {
      backend_->fill(t.dtype(), t.data, t.elements(), p.role == ParameterRole::scale ? p.factor : 0.0);
      continue;
    }
    const std::vector<float> w = draw(init, p, seed);
    if (t.dtype() == DType::f32) {
      backend_->copy_in(t.data, w.data(), t.bytes());
    } else {
      const std::vector<double> wide(w.begin(), w.end());
      backend_->copy_in(t.data, wide.data(), t.bytes());
    }
  }
  for (std::size_t i = 0; i < states_.size(); ++i)
    backend_->fill(states_[i].dtype(), states_[i].data, states_[i].elements(), state_specs_[i].initial);
  refresh_copies();
}

void ParameterStore::refresh_copies() {
  for (std::size_t i = 0; i < parameters_.size(); ++i) {
    const Tensor &from = parameters_[i], &to = operands_[i];
    if (from.data != to.data)
      backend_->cast({.from = from.dtype(), .to = to.dtype(), .n = from.elements(), .x = from.data, .y = to.data});
  }
}

void ParameterStore::require_match(const Graph& graph) const {
  const auto differ = [](const std::string& what) { throw UserError("this network's parameters do not belong to the graph: " + what); };
  if (graph.dtype() != dtype_) differ(fmt::format("{} here, {} there", name_of(dtype_), name_of(graph.dtype())));
  if (graph.parameters().size() != parameter_specs_.size() || graph.states().size() != state_specs_.size())
    differ(fmt::format("{} parameters and {} states here, {} and {} there", parameter_specs_.size(), state_specs_.size(),
                       graph.parameters().size(), graph.states().size()));
  for (std::size_t i = 0; i < parameter_specs_.size(); ++i) {
    const ParameterSpec &a = parameter_specs_[i], &b = graph.parameters()[i];
    if (a.name != b.name || a.shape != b.shape)
      differ(fmt::format("'{}' {} here, '{}' {} there", a.name, a.shape.to_string(), b.name, b.shape.to_string()));
  }
  for (std::size_t i = 0; i < state_specs_.size(); ++i) {
    const StateSpec &a = state_specs_[i], &b = graph.states()[i];
    if (a.name != b.name || a.spec != b.spec)
      differ(fmt::format("'{}' {} here, '{}' {} there", a.name, a.spec.to_string(), b.name, b.spec.to_string()));
  }
}

}  // namespace gradflow
