// A plan with addresses: every launch's operands, made once, used every step.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "gradflow/engine/executor.h"

namespace gradflow {

// Where a probe's results lie in the readings block (device memory, cleared before each step).
struct ProbeSlot {
  Stats* stats = nullptr;
  std::uint64_t* exponents = nullptr;
  Stats *first = nullptr, *rest = nullptr;  // split
  double* dot = nullptr;
  std::uint8_t* alive = nullptr;  // in a block of its own: it lives across steps
};

// The graph as an executor runs it, and its plan.
Graph as_run(Graph graph, const ExecutorOptions& options, const Backend& backend);
Plan plan_of(const Graph& graph, Backend& backend, bool with_optimizer, const ExecutorOptions& options);

class Binding {
 public:
  Binding(Graph graph, ParameterStore& parameters, Optimizer* optimizer, ExecutorOptions options);

  void launch(int index, Probing probing);
  std::string name_of_launch(const Launch& launch) const;
  std::string description_of_launch(const Launch& launch) const;

  void clear_readings();
  void push_history(std::int64_t step);
  std::vector<ProbeReading> readings();
  std::vector<std::vector<Stats>> history(std::int64_t steps);
  std::vector<std::uint8_t> alive(int probe) const;
  void clear_alive();

  Graph graph;
  ExecutorOptions options;
  Backend& backend;
  Optimizer* optimizer;
  Plan plan;
  DeviceMemory loss;  // one LossResult
  std::vector<Tensor> values, gradients, parameter_gradients;

 private:
  // A layer's two contexts with the arrays their spans point into.
  struct BoundNode {
    std::vector<Tensor> x, y, dy, dx, parameters, dparameters, states, saved;
    std::vector<GradMode> parameter_modes;
    std::unique_ptr<Prepared> prepared;
    ForwardContext forward;
    BackwardContext backward;
    Stats *x_stats = nullptr, *y_stats = nullptr, *dy_stats = nullptr, *dx_stats = nullptr;
    std::uint64_t *x_exponents = nullptr, *y_exponents = nullptr, *dy_exponents = nullptr, *dx_exponents = nullptr;
    BetweenSinks between, dbetween;
  };
  struct BoundUpdate {
    std::unique_ptr<kernels::Update> with_probes, without_probes;
  };

  ParameterStore& parameters_;
  DeviceMemory arena_, readings_, history_, alive_;
  std::vector<BoundNode> nodes_;
  std::vector<BoundUpdate> updates_;  // by launch; empty where the launch is no update
  std::vector<ProbeSlot> slots_;      // by request
  std::vector<Stats*> update_sinks_[3];  // by ParameterId: w, dw, update
  std::size_t scalar_bytes_ = 0;      // the leading part of readings_: one Stats per request
  std::vector<std::size_t> alive_units_;
  std::vector<kernels::RangeName> ranges_;  // by launch: its name in a profiler, or null

  Tensor buffer_tensor(int buffer, const TensorSpec& spec) const;
  void bind_tensors();
  void bind_probes();
  void bind_nodes();
  void bind_updates();
  void run(const Launch& launch, int index, Probing probing);
  void launch_probe(const Launch& launch);
};

}  // namespace gradflow
