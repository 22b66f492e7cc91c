// ParameterStore: what a network has learned. Parameters and states, in the memory of one backend.
//
// It outlives executors and is shared by them: the training step, the evaluation at another batch size
// and the last, smaller batch read the same memory. It is laid out from a graph; any graph with the
// same parameters and states (names, order, shapes) may be bound to it.
//
// The parameters of a bf16 network are f32: the master copy, which updates change and checkpoints keep. Beside those
// that enter matrix products lies a bf16 copy, which layers read; every update writes it, and so do initialize() and
// Checkpoint::restore().
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "gradflow/engine/graph.h"
#include "gradflow/engine/memory.h"

namespace gradflow {

// Do layers of this graph read a bf16 copy of this parameter?
inline bool has_copy(const Graph& graph, const ParameterSpec& p) {
  return p.multiplied && graph.dtype() != graph.parameter_dtype();
}

// How weights are drawn, by variance: lecun 1/fan_in, xavier 2/(fan_in + fan_out), he 2/fan_in (normal);
// torch: uniform in +-1/sqrt(fan_in), biases too (variance 1/(3 fan_in)); orthogonal: rows or columns
// orthonormal (QR of a normal matrix, sign-fixed). Every weight is multiplied by gain and by its own factor.
// Sources: LeCun 1998; Glorot & Bengio 2010; He et al. 2015 (1502.01852); Saxe et al. 2013 (1312.6120).
struct Initializer {
  enum class Kind : std::uint8_t { lecun, xavier, he, torch, orthogonal };
  Kind kind = Kind::he;
  double gain = 1;

  // Var(W) * fan_in of a weight under this initializer, and the variance of its bias.
  double scaled_variance(const ParameterSpec& weight) const;
  double bias_variance(const ParameterSpec& weight) const;
};

const char* name_of(Initializer::Kind kind) noexcept;

class ParameterStore {
 public:
  ParameterStore(Backend& backend, const Graph& graph);  // zeros

  // Draws every parameter and resets every state. An element's value depends on (seed, the parameter's
  // name, its index) alone: networks that share names and shapes share every bit, on every backend.
  void initialize(const Initializer& initializer, std::uint64_t seed);

  Backend& backend() const noexcept { return *backend_; }
  DType dtype() const noexcept { return dtype_; }  // the graph's
  std::span<const Tensor> parameters() const noexcept { return parameters_; }
  // What layers read, by parameter: its bf16 copy where there is one, else the parameter itself.
  std::span<const Tensor> operands() const noexcept { return operands_; }
  // To be called by whoever writes to parameters() himself.
  void refresh_copies();
  std::span<const Tensor> states() const noexcept { return states_; }
  std::span<const ParameterSpec> parameter_specs() const noexcept { return parameter_specs_; }
  std::span<const StateSpec> state_specs() const noexcept { return state_specs_; }

  // UserError naming the first difference, if the graph's parameters or states are not these.
  void require_match(const Graph& graph) const;

 private:
  Backend* backend_;
  DType dtype_;
  std::vector<ParameterSpec> parameter_specs_;
  std::vector<StateSpec> state_specs_;
  DeviceMemory memory_;
  std::vector<Tensor> parameters_, operands_, states_;
};

}  // namespace gradflow
