// Probes: named statistics on any value, gradient, parameter or update of a step.
//
// A probe is an entry of the plan like any other, so measuring costs no host round trip; where a layer
// or the optimizer reads the data anyway, the statistics ride along in that pass, and in a layer's the
// histogram over exponents. So it does of a value inside a fused layer, which is never stored. Probes change no bit
// of what is trained. A probe that cannot run is a UserError when the plan is made.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "gradflow/engine/graph.h"
#include "gradflow/kernels/stats.h"

namespace gradflow {

enum class ProbeTarget : std::uint8_t { value, gradient, parameter, parameter_gradient, update };

const char* name_of(ProbeTarget target) noexcept;

struct ProbeRequest {
  ProbeTarget target = ProbeTarget::value;
  int id = 0;              // ValueId for value and gradient, ParameterId otherwise
  bool stats = true;       // the scalars of `Stats`
  bool exponents = false;  // histogram over binary exponents
  bool alive = false;      // value only: which units (last dimension) were > 0 on any row since the last reset
  bool split = false;      // gradient only, of a value with several consumers: what the first
                           // contribution (the last consumer: a residual addition's skip) and the rest brought
};

// Two-part split of a gradient g = a + b, a the first contribution.
struct GradientSplit {
  Stats first, rest;
  double dot = 0;  // sum a*b
  double cosine() const noexcept;
};

// What one probe saw in one step.
struct ProbeReading {
  Stats stats;
  std::vector<std::uint64_t> exponents;  // kExponentBins counts, empty unless asked for
  GradientSplit split;
};

// graph.fused(), except where a probe needs the tensor itself: for alive flags, a split, a launch of its own
// (fuse_probes false, a second request of one kind on one array), or statistics that the fused layer cannot take, or not
// at less cost on a `host`.
Graph fused_for(const Graph& graph, std::span<const ProbeRequest> probes, bool host, bool fuse_probes = true);

// Every activation, activation gradient, parameter, parameter gradient and (with an optimizer) update:
// scalars only.
std::vector<ProbeRequest> all_scalar_probes(const Graph& graph, bool training, bool with_updates);

}  // namespace gradflow
