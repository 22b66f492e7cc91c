// Plan: a training step as one static list of launches over one arena.
//
// A function of the graph and the options alone: launch order, gradient modes, what runs in place, where
// statistics ride along, and the offset of every buffer. It can be printed, costed and tested without
// running anything.
//
// Lifetimes: a buffer lives from the launch that first writes it to the launch that last reads it;
// buffers whose lives do not meet may share memory. In place means one storage for two tensors, and is
// chosen only where the layer offers it and no later launch reads what is overwritten.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "gradflow/engine/graph.h"
#include "gradflow/engine/probe.h"

namespace gradflow {

enum class UpdatePlacement : std::uint8_t {
  none,       // no optimizer
  immediate,  // each parameter as soon as its gradient is complete: the gradient is still in cache and its
              // memory is free again at once
  at_end,     // all parameters in one launch after the last gradient
};

struct PlanOptions {
  bool training = true;   // false: forward only, nothing saved
  bool reuse = true;      // false: every tensor has memory of its own
  bool retain = false;    // keep every value and gradient readable until the next step
  UpdatePlacement update = UpdatePlacement::none;
  std::vector<ValueId> input_gradients;  // inputs of the graph whose gradient is wanted (and retained)
  std::vector<ProbeRequest> probes;
  bool fuse_probes = true;  // false: every probe is a launch of its own
};

enum class LaunchKind : std::uint8_t { forward, backward, update, stats, exponents, alive, snapshot, split };

const char* name_of(LaunchKind kind) noexcept;

struct Launch {
  LaunchKind kind = LaunchKind::forward;
  NodeId node = kNobody;  // whose pass or parameters; kNobody: all parameters (update at the end)
  int probe = kNobody;    // index into the requests, for probe launches
  Cost cost;              // of what this plan runs: without gradients that nobody wants
};

enum class BufferRole : std::uint8_t { value, gradient, saved, parameter_gradient, workspace, scratch, snapshot };

const char* name_of(BufferRole role) noexcept;

struct Buffer {
  BufferRole role = BufferRole::value;
  std::string name;
  DType dtype = DType::u8;  // of its elements; u8 for workspace
  std::size_t bytes = 0;
  int begin = 0, end = 0;   // first and last launch that touch it, inclusive
  int storage = 0;          // buffers of one storage lie at the same offset
  std::size_t offset = 0;   // in the arena, a multiple of 256
};

// Where a probe's scalars, or its histogram, come from.
struct ProbePlace {
  enum class Where : std::uint8_t {
    own_launch, forward_x, forward_y, forward_between, backward_dy, backward_dx, backward_between, update, none
  };
  Where where = Where::none;
  NodeId node = kNobody;  // the layer that carries it
  int between = kNobody;  // of the two places of that name: which of Node::between
};

struct Plan {
  std::vector<Launch> launches;
  int first_backward = 0;  // launches before it are the forward pass
  std::vector<Buffer> buffers;
  std::size_t arena_bytes = 0;
  std::size_t bytes_without_reuse = 0;  // the same buffers, each with memory of its own
  std::size_t parameter_bytes = 0, state_bytes = 0;  // persistent, outside the arena
  std::size_t parameter_copy_bytes = 0;              // of a bf16 network: the weights' bf16 copies, likewise
  std::size_t persistent_bytes() const noexcept { return parameter_bytes + state_bytes + parameter_copy_bytes; }

  // Indices into buffers, or kNobody.
  std::vector<int> value_buffer, gradient_buffer;      // by ValueId; none for what was fused away
  std::vector<int> parameter_gradient_buffer;          // by ParameterId
  std::vector<std::vector<int>> saved_buffers;         // by NodeId
  std::vector<int> forward_workspace, backward_workspace;  // by NodeId
  std::vector<int> backward_scratch;                   // by NodeId
  std::vector<std::vector<GradMode>> modes;            // by NodeId, per input
  std::vector<ProbePlace> probe_places;                // by request: of its scalars
  std::vector<ProbePlace> exponent_places;             // by request: of its histogram; never `update`
  std::vector<int> snapshot_buffer;                    // by request
};

// `backend` is asked what workspace each layer's vendor objects book (Layer::prepare).
//
// Fusing the graph before planning is the caller's (fused_for()); with `retain` no value may be fused away.
Plan make_plan(const Graph& graph, const PlanOptions& options, Backend& backend);

}  // namespace gradflow
