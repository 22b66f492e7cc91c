// Which buffers of a plan each of its launches reads and writes.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "gradflow/engine/plan.h"

namespace gradflow::app {

struct Operand {
  const char* role;  // "x", "y", "saved", "dy", "dx", "dw", "ws", or "snapshot"
  int buffer;        // index into Plan::buffers
};

struct LaunchOperands {
  std::vector<Operand> reads, writes;  // what is added to is in both
};

// One entry per launch. Parameters, states and moments lie outside the arena and are left out.
std::vector<LaunchOperands> operands_of(const Graph& graph, const Plan& plan,
                                        std::span<const ProbeRequest> probes);

// "block07.relu", or what a probe looks at, or "all parameters"
std::string subject_of(const Launch& launch, const Graph& graph, std::span<const ProbeRequest> probes);

}  // namespace gradflow::app
