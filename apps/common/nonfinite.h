// Where the first NaN or infinity of a diverged run appeared.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <vector>

#include "gradflow/engine/graph.h"
#include "gradflow/engine/probe.h"

namespace gradflow::app {

struct NonFinite {
  std::size_t history_index = 0;    // which of the steps that were kept, the oldest first
  std::string layer;                // "block07.linear"
  std::string tensor;               // "gradient of block07.linear", "update of block07.linear.weight"
  std::uint64_t count = 0, of = 0;  // elements that are NaN or infinite, and all
};

// `history` as Executor::read_history() gives it: [step][request]. Looks at the oldest step first, and in a
// step in the order in which tensors come to be: parameters and values forward, then gradients and
// updates backward. Nothing if every tensor was finite (then the loss itself overflowed).
std::optional<NonFinite> first_nonfinite(const Graph& graph, std::span<const ProbeRequest> requests,
                                         const std::vector<std::vector<Stats>>& history);

}  // namespace gradflow::app
