// Random graphs of toy layers.
#pragma once

#include <random>

#include "engine/toy_layers.h"
#include "gradflow/engine/graph.h"
#include "gradflow/engine/plan.h"

namespace gradflow::test {

// One or two inputs of each of two sizes, `nodes` layers whose inputs are drawn from all values so far
// (so some values have several consumers, some layers many inputs), and losses on what nobody reads. Some
// outputs stay unread. Equal seeds give equal graphs.
Graph random_graph(unsigned seed, int nodes);

// Random choices of everything a plan can be asked for, probes included.
PlanOptions random_options(const Graph& graph, unsigned seed);

}  // namespace gradflow::test
