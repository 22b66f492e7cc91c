// From the list of launches to buffers: when each tensor lives, what may lie over what, where all lie.
#include <fmt/format.h>

#include <algorithm>
#include <numeric>

#include "blame_layer.h"
#include "plan_builder.h"
#include "gradflow/engine/arena.h"
#include "gradflow/engine/index.h"

namespace gradflow {
namespace {

int last_of(const std::vector<int>& times, int otherwise) {
  return times.empty() ? otherwise : std::max(otherwise, *std::ranges::max_element(times));
}

}  // namespace

int PlanBuilder::add_buffer(BufferRole role, std::string name, DType dtype, std::size_t bytes, int begin, int end) {
  const int index = static_cast<int>(plan.buffers.size());
  plan.buffers.push_back({.role = role, .name = std::move(name), .dtype = dtype, .bytes = bytes, .begin = begin, .end = end,
                          .storage = index, .offset = 0});
  return index;
}

void PlanBuilder::make_buffers() {
  const auto nodes = graph_.nodes();
  const auto values = graph_.values();
  const int last_launch = std::max(0, static_cast<int>(plan.launches.size()) - 1);

  plan.value_buffer.assign(values.size(), kNobody);
  for (std::size_t v = 0; v < values.size(); ++v) {
    if (values[v].fused_away) continue;
    const bool is_input = values[v].producer == kNobody;
    // Inputs are filled before the step and stay, so that a step can be repeated on the same batch.
    const int begin = is_input ? 0 : forward_time_[at(values[v].producer)];
    const bool keep = is_input || options_.retain || values[v].consumers.empty();
    plan.value_buffer[v] = add_buffer(BufferRole::value, values[v].name, values[v].spec, begin,
                                      keep ? last_launch : last_of(value_reads_[v], begin));
  }
  plan.gradient_buffer.assign(values.size(), kNobody);
  for (std::size_t v = 0; v < values.size(); ++v) {
    if (contributors_[v].empty()) continue;
    const int begin = backward_time_[at(contributors_[v].front())];
    const bool keep = options_.retain || values[v].producer == kNobody;
    plan.gradient_buffer[v] = add_buffer(BufferRole::gradient, values[v].name, values[v].spec, begin,
                                         keep ? last_launch : last_of(gradient_reads_[v], begin));
  }

  plan.parameter_gradient_buffer.assign(graph_.parameters().size(), kNobody);
  plan.saved_buffers.resize(nodes.size());
  plan.forward_workspace.assign(nodes.size(), kNobody);
  plan.backward_workspace.assign(nodes.size(), kNobody);
  plan.backward_scratch.assign(nodes.size(), kNobody);
  for (std::size_t n = 0; n < nodes.size(); ++n) {
    const Node& node = nodes[n];
    std::vector<TensorSpec> inputs;
    for (const ValueId v : node.inputs) inputs.push_back(values[at(v)].spec);
    const auto prepared = blaming_layer(node.name, *node.layer, [&] { return node.layer->prepare(inputs, backend_); });
    const int forward = forward_time_[n], backward = backward_time_[n];
    if (prepared->forward_workspace)
      plan.forward_workspace[n] = add_buffer(BufferRole::workspace, node.name, DType::u8, prepared->forward_workspace, forward, forward);
    if (!options_.training || backward == kNobody) continue;
    for (const TensorSpec& saved : node.inference.saved)
      plan.saved_buffers[n].push_back(add_buffer(BufferRole::saved, node.name, saved, forward, backward));
    if (prepared->backward_workspace)
      plan.backward_workspace[n] = add_buffer(BufferRole::workspace, node.name, DType::u8, prepared->backward_workspace, backward, backward);
    if (node.inference.backward_scratch)
      plan.backward_scratch[n] = add_buffer(BufferRole::scratch, node.name, node.inference.outputs.front(), backward, backward);
    // A parameter's gradient waits for its update and probes: at once, or until the end of the step.
    const bool immediate = options_.update == UpdatePlacement::immediate && !options_.retain;
    const int last = immediate ? node_done_[n] : last_launch;
    for (const ParameterId p : node.parameters) {
      const ParameterSpec& parameter = graph_.parameter(p);
      plan.parameter_gradient_buffer[at(p)] = add_buffer(BufferRole::parameter_gradient, parameter.name,
                                                         TensorSpec{parameter.shape, graph_.parameter_dtype()}, backward, last);
    }
  }
  for (std::size_t i = 0; i < snapshot_time_.size(); ++i) {
    if (snapshot_time_[i] == kNobody) continue;
    const Value& value = graph_.value(options_.probes[i].id);
    plan.snapshot_buffer[i] = add_buffer(BufferRole::snapshot, value.name, value.spec, snapshot_time_[i], split_time_[i]);
  }
}

bool PlanBuilder::last_read_is(const std::vector<int>& reads, int time) const {
  return std::ranges::all_of(reads, [&](int t) { return t <= time; });
}

// `from` gives up its own storage and lies where `into` lies.
void PlanBuilder::merge(int into, int from) { plan.buffers[at(from)].storage = plan.buffers[at(into)].storage; }

void PlanBuilder::share_storage() {
  if (!options_.reuse) return;
  const auto nodes = graph_.nodes();
  for (std::size_t n = 0; n < nodes.size(); ++n) {  // forward: an output over the input it is made from
    const Node& node = nodes[n];
    if (!node.inference.output_over_input || options_.retain) continue;
    const ValueId x = node.inputs[at(*node.inference.output_over_input)], y = node.outputs.front();
    if (graph_.value(x).producer == kNobody || graph_.value(x).spec.bytes() != graph_.value(y).spec.bytes()) continue;
    if (last_read_is(value_reads_[at(x)], forward_time_[n])) merge(plan.value_buffer[at(x)], plan.value_buffer[at(y)]);
  }
  for (std::size_t i = nodes.size(); i-- > 0;) {  // backward: an input's gradient over the output's
    const Node& node = nodes[i];
    if (!runs_backward_[i]) continue;
    const auto dx_buffer = [&](int input) {
      const bool overwrites = plan.modes[i][at(input)] == GradMode::overwrite;
      return overwrites ? plan.gradient_buffer[at(node.inputs[at(input)])] : kNobody;
    };
    if (node.inference.gradient_over_saved && !plan.saved_buffers[i].empty()) {
      const int dx = dx_buffer(*node.inference.gradient_over_saved), saved = plan.saved_buffers[i].front();
      if (dx != kNobody && plan.buffers[at(dx)].bytes == plan.buffers[at(saved)].bytes) merge(saved, dx);
    }
    if (options_.retain) continue;
    // dy's last reader is this very launch: probes on it have run before.
    const int dy = node.outputs.empty() ? kNobody : plan.gradient_buffer[at(node.outputs.front())];
    if (plan.backward_scratch[i] != kNobody && dy != kNobody) merge(dy, plan.backward_scratch[i]);
    if (node.inference.gradient_over_dy) {
      const int dx = dx_buffer(*node.inference.gradient_over_dy);
      if (dx != kNobody && dy != kNobody && plan.buffers[at(dx)].bytes == plan.buffers[at(dy)].bytes) merge(dy, dx);
    }
  }
}

void PlanBuilder::assign_offsets() {
  std::vector<Lifetime> storages(plan.buffers.size());
  for (std::size_t i = 0; i < plan.buffers.size(); ++i) {
    const Buffer& b = plan.buffers[i];
    Lifetime& s = storages[at(b.storage)];
    if (s.bytes == 0) s = {.bytes = b.bytes, .begin = b.begin, .end = b.end, .offset = 0};
    s.bytes = std::max(s.bytes, b.bytes);
    s.begin = options_.reuse ? std::min(s.begin, b.begin) : 0;
    s.end = options_.reuse ? std::max(s.end, b.end) : static_cast<int>(plan.launches.size());
    plan.bytes_without_reuse += (b.bytes + kArenaAlignment - 1) / kArenaAlignment * kArenaAlignment;
  }
  plan.arena_bytes = pack(storages);
  for (Buffer& b : plan.buffers) b.offset = storages[at(b.storage)].offset;
}

}  // namespace gradflow
