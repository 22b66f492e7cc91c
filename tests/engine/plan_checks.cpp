#include "engine/plan_checks.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <set>

#include "gradflow/engine/arena.h"
#include "gradflow/engine/index.h"

namespace gradflow::test {
namespace {

std::size_t aligned(std::size_t bytes) {
  return (bytes + kArenaAlignment - 1) / kArenaAlignment * kArenaAlignment;
}

class Replay {
 public:
  Replay(const Graph& graph, const PlanOptions& options, const Plan& plan)
      : graph_(graph), options_(options), plan_(plan), intact_(plan.buffers.size()) {
    for (std::size_t v = 0; v < graph.values().size(); ++v)
      if (graph.values()[v].producer == kNobody) write(plan.value_buffer[v]);
  }

  std::vector<std::string> run() {
    check_places();
    check_modes();
    for (now_ = 0; now_ < static_cast<int>(plan_.launches.size()); ++now_) launch(plan_.launches[at(now_)]);
    check_end();
    return std::move(faults_);
  }

 private:
  const Graph& graph_;
  const PlanOptions& options_;
  const Plan& plan_;
  std::vector<bool> intact_;  // by buffer: holds what was last written to it
  std::vector<int> read_now_, written_now_;
  std::set<std::pair<int, int>> in_place_;  // (written, read) pairs the layer of this launch allows
  std::vector<std::string> faults_;
  int now_ = 0;

  template <class... Args>
  void fault(fmt::format_string<Args...> text, Args&&... args) {
    faults_.push_back(fmt::format("launch {}: {}", now_, fmt::format(text, std::forward<Args>(args)...)));
  }
  std::string name(int b) const {
    return fmt::format("{} '{}'", name_of(plan_.buffers[at(b)].role), plan_.buffers[at(b)].name);
  }
  bool overlap(int a, int b) const {
    const Buffer &x = plan_.buffers[at(a)], &y = plan_.buffers[at(b)];
    return x.bytes && y.bytes && x.offset < y.offset + y.bytes && y.offset < x.offset + x.bytes;
  }

  void read(int b) {
    if (b == kNobody) return fault("reads a tensor that has no memory");
    if (!intact_[at(b)]) fault("reads {}, which is not written or was overwritten", name(b));
    read_now_.push_back(b);
  }
  void write(int b) {
    if (b == kNobody) return fault("writes a tensor that has no memory");
    for (std::size_t other = 0; other < intact_.size(); ++other)
      if (static_cast<int>(other) != b && intact_[other] && overlap(static_cast<int>(other), b))
        intact_[other] = false;
    intact_[at(b)] = true;
    written_now_.push_back(b);
  }

  void launch(const Launch& l) {
    read_now_.clear(), written_now_.clear(), in_place_.clear();
    if (l.kind == LaunchKind::forward)
      forward(l.node);
    else if (l.kind == LaunchKind::backward)
      backward(l.node);
    else if (l.kind == LaunchKind::update)
      update(l.node);
    else
      probe(l);
    for (const int w : written_now_) {
      for (const int r : read_now_)
        if (w != r && overlap(w, r) && !in_place_.contains({w, r}))
          fault("writes {} over {}, which it reads", name(w), name(r));
      for (const int other : written_now_)
        if (w < other && overlap(w, other)) fault("writes {} and {} to one place", name(w), name(other));
    }
    for (const auto* list : {&read_now_, &written_now_})
      for (const int b : *list)
        if (now_ < plan_.buffers[at(b)].begin || now_ > plan_.buffers[at(b)].end)
          fault("{} is touched outside its life", name(b));
  }

  void forward(NodeId n) {
    const Node& node = graph_.node(n);
    for (const ValueId x : node.inputs) read(plan_.value_buffer[at(x)]);
    if (const auto over = node.inference.output_over_input)
      in_place_.insert(
          {plan_.value_buffer[at(node.outputs[0])], plan_.value_buffer[at(node.inputs[at(*over)])]});
    for (const ValueId y : node.outputs) write(plan_.value_buffer[at(y)]);
    for (const int b : plan_.saved_buffers[at(n)]) write(b);
    if (plan_.forward_workspace[at(n)] != kNobody) write(plan_.forward_workspace[at(n)]);
  }

  void backward(NodeId n) {
    const Node& node = graph_.node(n);
    for (const ValueId y : node.outputs)
      if (plan_.gradient_buffer[at(y)] != kNobody) read(plan_.gradient_buffer[at(y)]);
    for (std::size_t i = 0; i < node.inputs.size(); ++i)
      if (node.inference.backward_reads_input.contains(i)) read(plan_.value_buffer[at(node.inputs[i])]);
    for (std::size_t i = 0; i < node.outputs.size(); ++i)
      if (node.inference.backward_reads_output.contains(i)) read(plan_.value_buffer[at(node.outputs[i])]);
    for (const int b : plan_.saved_buffers[at(n)]) read(b);
    const auto gradient_of = [&](int input) { return plan_.gradient_buffer[at(node.inputs[at(input)])]; };
    if (const auto over = node.inference.gradient_over_dy)
      in_place_.insert({gradient_of(*over), plan_.gradient_buffer[at(node.outputs[0])]});
    if (const int scratch = plan_.backward_scratch[at(n)]; scratch != kNobody) {
      in_place_.insert({scratch, plan_.gradient_buffer[at(node.outputs[0])]});
      write(scratch);
    }
    if (const auto over = node.inference.gradient_over_saved)
      in_place_.insert({gradient_of(*over), plan_.saved_buffers[at(n)].front()});
    for (std::size_t i = 0; i < node.inputs.size(); ++i) {
      const GradMode mode = plan_.modes[at(n)][i];
      if (mode == GradMode::accumulate) read(gradient_of(static_cast<int>(i)));
    }
    for (std::size_t i = 0; i < node.inputs.size(); ++i)
      if (plan_.modes[at(n)][i] != GradMode::none) write(gradient_of(static_cast<int>(i)));
    for (const ParameterId p : node.parameters) write(plan_.parameter_gradient_buffer[at(p)]);
    if (plan_.backward_workspace[at(n)] != kNobody) write(plan_.backward_workspace[at(n)]);
  }

  void update(NodeId n) {
    for (NodeId m = 0; m < static_cast<NodeId>(graph_.nodes().size()); ++m)
      if (n == kNobody || n == m)
        for (const ParameterId p : graph_.node(m).parameters) read(plan_.parameter_gradient_buffer[at(p)]);
  }

  void probe(const Launch& l) {
    const ProbeRequest& r = options_.probes[at(l.probe)];
    if (r.target == ProbeTarget::value) read(plan_.value_buffer[at(r.id)]);
    if (r.target == ProbeTarget::gradient) read(plan_.gradient_buffer[at(r.id)]);
    if (r.target == ProbeTarget::parameter_gradient) read(plan_.parameter_gradient_buffer[at(r.id)]);
    if (l.kind == LaunchKind::snapshot) write(plan_.snapshot_buffer[at(l.probe)]);
    if (l.kind == LaunchKind::split) read(plan_.snapshot_buffer[at(l.probe)]);
  }

  void check_places() {
    for (std::size_t i = 0; i < plan_.buffers.size(); ++i) {
      const Buffer& b = plan_.buffers[i];
      if (b.offset % kArenaAlignment != 0)
        fault("{} lies at {}, not aligned", name(static_cast<int>(i)), b.offset);
      if (b.offset + b.bytes > plan_.arena_bytes)
        fault("{} ends behind the arena", name(static_cast<int>(i)));
      if (b.begin > b.end) fault("{} ends before it begins", name(static_cast<int>(i)));
      if (!options_.reuse && b.storage != static_cast<int>(i))
        fault("{} shares memory without reuse", name(static_cast<int>(i)));
    }
  }

  // Who adds to a gradient, in launch order: exactly one overwrites, and it comes first.
  void check_modes() {
    std::map<ValueId, int> contributions;
    for (const Launch& l : plan_.launches) {
      if (l.kind != LaunchKind::backward) continue;
      const Node& node = graph_.node(l.node);
      for (std::size_t i = 0; i < node.inputs.size(); ++i) {
        const GradMode mode = plan_.modes[at(l.node)][i];
        if (mode == GradMode::none) continue;
        const bool first = contributions[node.inputs[i]]++ == 0;
        if (first != (mode == GradMode::overwrite)) fault("'{}' has a wrong mode for input {}", node.name, i);
      }
    }
    for (std::size_t v = 0; v < plan_.gradient_buffer.size(); ++v)
      if ((plan_.gradient_buffer[v] != kNobody) != contributions.contains(static_cast<ValueId>(v)))
        fault("the gradient of '{}' has memory but nobody who writes it, or the other way round",
              graph_.values()[v].name);
  }

  void check_end() {
    const auto must_survive = [&](int b, const char* why) {
      if (b != kNobody && !intact_[at(b)]) fault("{} does not survive the step: {}", name(b), why);
    };
    for (std::size_t v = 0; v < graph_.values().size(); ++v) {
      const bool input = graph_.values()[v].producer == kNobody;
      if (input || graph_.values()[v].consumers.empty() || options_.retain)
        must_survive(plan_.value_buffer[v], "a value to be read later");
      if (input || options_.retain) must_survive(plan_.gradient_buffer[v], "a gradient to be read later");
    }
    if (options_.retain || options_.update == UpdatePlacement::none)
      for (const int b : plan_.parameter_gradient_buffer)
        must_survive(b, "a parameter's gradient to be read later");
  }
};

}  // namespace

std::vector<std::string> faults_of(const Graph& graph, const PlanOptions& options, const Plan& plan) {
  return Replay(graph, options, plan).run();
}

std::size_t largest_live(const Plan& plan) {
  struct Storage {
    std::size_t bytes = 0;
    int begin = 0, end = 0;
  };
  std::map<int, Storage> storages;
  for (const Buffer& b : plan.buffers) {
    auto [it, fresh] = storages.try_emplace(b.storage, Storage{b.bytes, b.begin, b.end});
    Storage& s = it->second;
    s = {std::max(s.bytes, b.bytes), std::min(s.begin, b.begin), std::max(s.end, b.end)};
  }
  std::size_t largest = 0;
  for (int t = 0; t < static_cast<int>(plan.launches.size()); ++t) {
    std::size_t live = 0;
    for (const auto& [id, s] : storages)
      if (s.begin <= t && t <= s.end) live += aligned(s.bytes);
    largest = std::max(largest, live);
  }
  return largest;
}

}  // namespace gradflow::test
