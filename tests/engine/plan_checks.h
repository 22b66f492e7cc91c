// Replays a plan's launches on an imaginary arena and complains of every promise it breaks. It derives what
// each launch reads and writes from the graph alone, not from the plan's own lifetimes.
#pragma once

#include <string>
#include <vector>

#include "gradflow/engine/plan.h"

namespace gradflow::test {

// One line per broken promise; empty if the plan is sound.
std::vector<std::string> faults_of(const Graph& graph, const PlanOptions& options, const Plan& plan);

// Largest sum of bytes of storages that live at one launch: no arena can be smaller.
std::size_t largest_live(const Plan& plan);

}  // namespace gradflow::test
