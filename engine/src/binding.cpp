#include "binding.h"

#include <fmt/format.h>

#include "gradflow/engine/index.h"
#include "gradflow/engine/out_of_memory.h"
#include "gradflow/kernels/error.h"

namespace gradflow {
namespace {

PlanOptions plan_options(const ExecutorOptions& o, Backend& backend, bool with_optimizer) {
  PlanOptions p;
  p.training = o.training;
  p.reuse = o.reuse;
  p.retain = o.retain;
  p.input_gradients = o.input_gradients;
  p.probes = o.probes;
  p.fuse_probes = o.fuse_probes;
  // On the host a gradient is updated from while it is in cache; on a GPU one launch for all is cheaper.
  if (o.training && with_optimizer) p.update = backend.is_host() ? UpdatePlacement::immediate : UpdatePlacement::at_end;
  return p;
}

// What is queued in its life has the name in a profiler's timeline; a null name costs nothing.
class NamedRange {
 public:
  NamedRange(Backend& backend, kernels::RangeName name) : backend_(name ? &backend : nullptr) {
    if (backend_) backend_->range_begin(name);
  }
  ~NamedRange() {
    if (backend_) backend_->range_end();
  }
  NamedRange(const NamedRange&) = delete;
  NamedRange& operator=(const NamedRange&) = delete;

 private:
  Backend* backend_;
};

// Bytes of an optimizer's moments.
std::size_t bytes_of(const Optimizer* optimizer) {
  std::size_t bytes = 0;
  if (!optimizer) return 0;
  for (const auto& moments : {optimizer->first_moments(), optimizer->second_moments()})
    for (const Tensor& m : moments) bytes += m ? m.bytes() : 0;
  return bytes;
}

}  // namespace

Graph as_run(Graph g, const ExecutorOptions& o, const Backend& backend) {
  if (!o.fuse || o.retain) return g;
  return fused_for(g, o.probes, backend.is_host() && !o.fuse_as_device, o.fuse_probes);
}

Plan plan_of(const Graph& graph, Backend& backend, bool with_optimizer, const ExecutorOptions& options) {
  return make_plan(graph, plan_options(options, backend, with_optimizer), backend);
}

Binding::Binding(Graph g, ParameterStore& parameters, Optimizer* updates, ExecutorOptions o)
    : graph(as_run(std::move(g), o, parameters.backend())), options(std::move(o)), backend(parameters.backend()), optimizer(updates),
      plan(plan_of(graph, backend, optimizer != nullptr, options)), parameters_(parameters) {
  parameters.require_match(graph);
  if (optimizer && &optimizer->parameters() != &parameters)
    throw UserError("the optimizer was made for another parameter store: make it for the one the executor uses");
  if (options.history < 1) throw UserError(fmt::format("a probe history of {} steps: at least 1", options.history));
  require_room(plan, room_for_arena(backend, options.memory_limit, plan.persistent_bytes() + bytes_of(optimizer)));
  arena_ = DeviceMemory(backend, plan.arena_bytes);
  loss = DeviceMemory(backend, sizeof(kernels::LossResult));
  backend.zero(loss.data(), loss.bytes());
  if (plan.arena_bytes) backend.zero(arena_.data(), plan.arena_bytes);
  bind_tensors();
  bind_probes();
  bind_nodes();
  bind_updates();
  for (const Launch& l : plan.launches) ranges_.push_back(backend.register_range(name_of_launch(l).c_str()));
}

Tensor Binding::buffer_tensor(int buffer, const TensorSpec& spec) const {
  if (buffer == kNobody) return {nullptr, spec};
  return {arena_.at(plan.buffers[at(buffer)].offset), spec};
}

void Binding::bind_tensors() {
  for (std::size_t v = 0; v < graph.values().size(); ++v) {
    values.push_back(buffer_tensor(plan.value_buffer[v], graph.values()[v].spec));
    gradients.push_back(buffer_tensor(plan.gradient_buffer[v], graph.values()[v].spec));
  }
  for (std::size_t p = 0; p < graph.parameters().size(); ++p)
    parameter_gradients.push_back(buffer_tensor(plan.parameter_gradient_buffer[p], {graph.parameters()[p].shape, graph.parameter_dtype()}));
}

void Binding::bind_nodes() {
  nodes_.resize(graph.nodes().size());
  for (std::size_t n = 0; n < nodes_.size(); ++n) {
    const Node& node = graph.nodes()[n];
    BoundNode& b = nodes_[n];
    std::vector<TensorSpec> input_specs;
    for (std::size_t i = 0; i < node.inputs.size(); ++i) {
      const std::size_t v = at(node.inputs[i]);
      input_specs.push_back(values[v].spec);
      b.x.push_back(values[v]);
      b.dx.push_back(plan.modes[n][i] == GradMode::none ? Tensor{nullptr, values[v].spec} : gradients[v]);
    }
    for (const ValueId v : node.outputs) {
      b.y.push_back(values[at(v)]);
      b.dy.push_back(gradients[at(v)]);
    }
    for (const ParameterId p : node.parameters) {
      b.parameters.push_back(parameters_.operands()[at(p)]);
      b.dparameters.push_back(parameter_gradients[at(p)]);
    }
    b.parameter_modes.assign(node.parameters.size(), GradMode::overwrite);
    for (const StateId s : node.states) b.states.push_back(parameters_.states()[at(s)]);
    for (std::size_t i = 0; i < plan.saved_buffers[n].size(); ++i)
      b.saved.push_back(buffer_tensor(plan.saved_buffers[n][i], node.inference.saved[i]));
    b.prepared = node.layer->prepare(input_specs, backend);

    const auto workspace = [&](int buffer) { return buffer == kNobody ? nullptr : arena_.at(plan.buffers[at(buffer)].offset); };
    ForwardContext& f = b.forward;
    f.backend = &backend;
    f.training = options.training;
    f.x = b.x, f.y = b.y, f.parameters = b.parameters, f.states = b.states, f.saved = b.saved;
    f.workspace = workspace(plan.forward_workspace[n]);
    f.prepared = b.prepared.get();
    f.loss = loss.as<kernels::LossResult>();
    BackwardContext& w = b.backward;
    w.backend = &backend;
    w.x = b.x, w.y = b.y, w.dy = b.dy, w.dx = b.dx, w.parameters = b.parameters, w.dparameters = b.dparameters;
    w.states = b.states, w.saved = b.saved;
    w.modes = plan.modes[n];
    w.parameter_modes = b.parameter_modes;
    w.workspace = workspace(plan.backward_workspace[n]);
    w.scratch = workspace(plan.backward_scratch[n]);
    w.prepared = b.prepared.get();
  }
  using Where = ProbePlace::Where;
  const auto bind = [&](const ProbePlace& place, auto* to, auto ProbeSinks::*kind, auto of_x, auto of_y, auto of_dy, auto of_dx) {
    if (place.node == kNobody) return;
    if (place.between != kNobody) {
      BoundNode& b = nodes_[at(place.node)];
      (place.where == Where::forward_between ? b.between : b.dbetween).at(at(place.between)).*kind = to;
      return;
    }
    const auto sink = place.where == Where::forward_x     ? of_x
                      : place.where == Where::forward_y   ? of_y
                      : place.where == Where::backward_dy ? of_dy
                                                          : of_dx;
    nodes_[at(place.node)].*sink = to;
  };
  using N = BoundNode;
  for (std::size_t i = 0; i < slots_.size(); ++i) {
    bind(plan.probe_places[i], slots_[i].stats, &ProbeSinks::stats, &N::x_stats, &N::y_stats, &N::dy_stats, &N::dx_stats);
    bind(plan.exponent_places[i], slots_[i].exponents, &ProbeSinks::exponents, &N::x_exponents, &N::y_exponents, &N::dy_exponents, &N::dx_exponents);
  }
}

void Binding::bind_updates() {
  updates_.resize(plan.launches.size());
  if (!optimizer) return;
  const auto slice = [&](std::vector<kernels::UpdateSlice>& slices, ParameterId p, bool probes) {
    const std::size_t i = at(p);
    const Tensor &w = parameters_.parameters()[i], &operand = parameters_.operands()[i];
    const auto sink = [&](std::size_t which) { return probes ? update_sinks_[which][i] : nullptr; };
    slices.push_back({.n = w.elements(), .w = w.data,
                      .dw = parameter_gradients[i].data, .first_moment = optimizer->first_moments()[i].data,
                      .second_moment = optimizer->second_moments()[i].data, .decay = graph.parameters()[i].decay,
                      .w_stats = sink(0), .dw_stats = sink(1), .update_stats = sink(2), .w_bf16 = operand.data == w.data ? nullptr : operand.data});
  };
  const kernels::UpdateDesc desc{.kind = optimizer->config().kind, .dtype = graph.parameter_dtype(), .scalars = optimizer->scalars()};
  for (std::size_t l = 0; l < plan.launches.size(); ++l) {
    const Launch& launch = plan.launches[l];
    if (launch.kind != LaunchKind::update) continue;
    const bool all = launch.node == kNobody;
    const NodeId first = all ? 0 : launch.node, last = all ? static_cast<NodeId>(graph.nodes().size()) : launch.node + 1;
    for (const bool probes : {false, true}) {
      std::vector<kernels::UpdateSlice> slices;
      for (NodeId n = first; n < last; ++n)
        for (const ParameterId p : graph.node(n).parameters) slice(slices, p, probes);
      (probes ? updates_[l].with_probes : updates_[l].without_probes) = backend.prepare_update(desc, slices);
    }
  }
}

std::string Binding::name_of_launch(const Launch& launch) const {
  if (launch.probe != kNobody) {
    const ProbeRequest& r = options.probes[at(launch.probe)];
    const bool on_value = r.target == ProbeTarget::value || r.target == ProbeTarget::gradient;
    return fmt::format("{} {} {}", on_value ? graph.value(r.id).name : graph.parameter(r.id).name, name_of(r.target), name_of(launch.kind));
  }
  return fmt::format("{} {}", launch.node == kNobody ? "all parameters" : graph.node(launch.node).name, name_of(launch.kind));
}

std::string Binding::description_of_launch(const Launch& l) const {
  if (l.kind != LaunchKind::forward && l.kind != LaunchKind::backward) return {};
  const Prepared* prepared = nodes_[at(l.node)].prepared.get();
  if (!prepared) return {};
  return l.kind == LaunchKind::forward ? prepared->forward_description : prepared->backward_description;
}

void Binding::launch(int index, Probing probing) {
  const Launch& l = plan.launches[at(index)];
  const bool probes = probing != Probing::off;
  if (l.probe != kNobody && probing != Probing::all && !(probes && l.kind == LaunchKind::stats)) return;
  const NamedRange range(backend, ranges_[at(index)]);
  run(l, index, probing);
}

void Binding::run(const Launch& l, int index, Probing probing) {
  const bool probes = probing != Probing::off, exponents = probing == Probing::all;
  const auto asked = [&](BetweenSinks sinks) {
    for (ProbeSinks& s : sinks) s = {probes ? s.stats : nullptr, exponents ? s.exponents : nullptr};
    return sinks;
  };
  switch (l.kind) {
    case LaunchKind::forward: {
      BoundNode& b = nodes_[at(l.node)];
      b.forward.x_stats = probes ? b.x_stats : nullptr;
      b.forward.y_stats = probes ? b.y_stats : nullptr;
      b.forward.x_exponents = exponents ? b.x_exponents : nullptr;
      b.forward.y_exponents = exponents ? b.y_exponents : nullptr;
      b.forward.between = asked(b.between);
      return graph.node(l.node).layer->forward(b.forward);
    }
    case LaunchKind::backward: {
      BoundNode& b = nodes_[at(l.node)];
      b.backward.dy_stats = probes ? b.dy_stats : nullptr;
      b.backward.dx_stats = probes ? b.dx_stats : nullptr;
      b.backward.dy_exponents = exponents ? b.dy_exponents : nullptr;
      b.backward.dx_exponents = exponents ? b.dx_exponents : nullptr;
      b.backward.between = asked(b.dbetween);
      return graph.node(l.node).layer->backward(b.backward);
    }
    case LaunchKind::update: {
      const BoundUpdate& u = updates_[at(index)];
      return (probes ? u.with_probes : u.without_probes)->run();
    }
    default: launch_probe(l);
  }
}

}  // namespace gradflow
