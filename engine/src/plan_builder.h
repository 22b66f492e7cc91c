// The steps in which a plan is made; each reads what the ones before it wrote.
#pragma once

#include <vector>

#include "gradflow/engine/plan.h"

namespace gradflow {

class PlanBuilder {
 public:
  PlanBuilder(const Graph& graph, const PlanOptions& options, Backend& backend);

  void find_gradient_flow();  // which values have a gradient, who contributes first and last
  void place_probes();        // ride along or launch of one's own
  void list_launches();
  void make_buffers();        // with lifetimes
  void share_storage();       // in place
  void assign_offsets();

  Plan plan;

 private:
  const Graph& graph_;
  const PlanOptions& options_;
  Backend& backend_;

  // By ValueId. Contributors of a gradient, in the order in which they run (reverse node order).
  std::vector<std::vector<NodeId>> contributors_;
  std::vector<bool> needs_gradient_;
  std::vector<bool> runs_backward_;  // by NodeId
  std::vector<int> forward_time_, backward_time_;  // by NodeId; launch index, or kNobody
  std::vector<int> node_done_;  // by NodeId: last launch that belongs to its backward, probes and update included
  std::vector<std::vector<int>> value_reads_, gradient_reads_;  // by ValueId: launch indices
  std::vector<std::vector<int>> value_probes_, gradient_probes_, parameter_probes_;  // request indices by id
  std::vector<int> snapshot_time_, split_time_;    // by request

  struct Between {  // a value inside a fused layer
    NodeId node = kNobody;
    int place = kNobody;  // in Node::between
  };
  Between between(ValueId v) const;
  bool has_gradient(ValueId v) const { return !contributors_[static_cast<std::size_t>(v)].empty(); }
  void check(const ProbeRequest& request) const;
  ProbePlace place(const ProbeRequest& request) const;
  void push(LaunchKind kind, NodeId node, int probe, Cost cost);
  void push_value_probes(ValueId v);
  void push_gradient_probes(ValueId v, NodeId after);
  void push_parameter_probes(NodeId n, ProbeTarget target);
  void push_update(NodeId n);
  int add_buffer(BufferRole role, std::string name, DType dtype, std::size_t bytes, int begin, int end);
  int add_buffer(BufferRole role, std::string name, const TensorSpec& spec, int begin, int end) {
    return add_buffer(role, std::move(name), spec.dtype, spec.bytes(), begin, end);
  }
  void merge(int into, int from);
  bool last_read_is(const std::vector<int>& reads, int time) const;
};

}  // namespace gradflow
