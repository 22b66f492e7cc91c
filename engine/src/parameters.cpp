#include "gradflow/engine/parameters.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <span>
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

// Where the numbers of one parameter come from: element i is drawn by its index, so any part of it can be drawn alone.
class Draw {
 public:
  Draw(const Initializer& init, const ParameterSpec& p, std::uint64_t seed)
      : kind_(init.kind), bias_(p.role == ParameterRole::bias), random_(seed, p.name) {
    const double unit = 1 / std::sqrt(static_cast<double>(p.fan_in));
    width_ = kind_ == Initializer::Kind::torch ? (bias_ ? unit : init.gain * p.factor * unit)
                                               : unit * std::sqrt(init.scaled_variance(p));
  }
  // The numbers from `first` on; f32 whatever the storage type, so an f64 network is the f32 one computed more
  // exactly.
  void part(std::span<float> w, std::size_t first) const {
    if (kind_ == Initializer::Kind::torch)
      random_.fill_uniform(w, -width_, width_, first);
    else if (bias_)
      std::ranges::fill(w, 0.0f);
    else
      random_.fill_normal(w, 0, width_, first);
  }

 private:
  Initializer::Kind kind_;
  bool bias_;
  RandomStream random_;
  double width_ = 0;
};

// Orthogonal weights are made whole.
std::vector<float> draw_orthogonal(const Initializer& init, const ParameterSpec& p, std::uint64_t seed) {
  std::vector<float> w(p.shape.elements());
  RandomStream(seed, p.name).fill_normal(std::span(w), 0, 1);
  const std::size_t rows = static_cast<std::size_t>(p.shape.rank() ? p.shape[0] : 1);
  orthonormalize(w, rows, w.size() / rows, init.gain * p.factor);
  return w;
}

// Elements in a part: a copy of a whole weight on the host could be as large as all that is left of its memory.
constexpr std::size_t kPart = std::size_t{1} << 22;

}  // namespace

void ParameterStore::initialize(const Initializer& init, std::uint64_t seed) {
  for (std::size_t i = 0; i < parameters_.size(); ++i) {
    const ParameterSpec& p = parameter_specs_[i];
    const Tensor& t = parameters_[i];
    if (p.role == ParameterRole::scale || p.role == ParameterRole::shift) {
      backend_->fill(t.dtype(), t.data, t.elements(), p.role == ParameterRole::scale ? p.factor : 0.0);
      continue;
    }
    const auto put = [&](std::span<const float> w, std::size_t first) {
      const std::size_t size = size_of(t.dtype());
      void* const at = static_cast<std::byte*>(t.data) + first * size;
      if (t.dtype() == DType::f32) return backend_->copy_in(at, w.data(), w.size() * size);
      const std::vector<double> wide(w.begin(), w.end());
      backend_->copy_in(at, wide.data(), w.size() * size);
    };
    if (init.kind == Initializer::Kind::orthogonal && p.role != ParameterRole::bias) {
      put(draw_orthogonal(init, p, seed), 0);
      continue;
    }
    const Draw draw(init, p, seed);
    std::vector<float> part(std::min(kPart, t.elements()));
    for (std::size_t first = 0; first < t.elements(); first += part.size()) {
      part.resize(std::min(part.size(), t.elements() - first));
      draw.part(part, first);
      put(part, first);
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
