#include "gradflow/engine/plan.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>

#include "plan_builder.h"
#include "gradflow/engine/arena.h"
#include "gradflow/kernels/error.h"

namespace gradflow {

const char* name_of(LaunchKind kind) noexcept {
  switch (kind) {
    case LaunchKind::forward: return "forward";
    case LaunchKind::backward: return "backward";
    case LaunchKind::update: return "update";
    case LaunchKind::stats: return "stats";
    case LaunchKind::exponents: return "exponents";
    case LaunchKind::alive: return "alive";
    case LaunchKind::snapshot: return "snapshot";
    case LaunchKind::split: return "split";
  }
  return "?";
}

const char* name_of(BufferRole role) noexcept {
  switch (role) {
    case BufferRole::value: return "value";
    case BufferRole::gradient: return "gradient";
    case BufferRole::saved: return "saved";
    case BufferRole::parameter_gradient: return "parameter gradient";
    case BufferRole::workspace: return "workspace";
    case BufferRole::scratch: return "scratch";
    case BufferRole::snapshot: return "snapshot";
  }
  return "?";
}

Plan make_plan(const Graph& graph, const PlanOptions& options, Backend& backend) {
  PlanBuilder builder(graph, options, backend);
  builder.find_gradient_flow();
  builder.place_probes();
  builder.list_launches();
  builder.make_buffers();
  builder.share_storage();
  builder.assign_offsets();
  return std::move(builder.plan);
}

}  // namespace gradflow
