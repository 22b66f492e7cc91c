#include "apps/bench/step.h"

#include <algorithm>
#include <chrono>
#include <map>
#include <optional>

#include "apps/bench/median.h"
#include "apps/bench/step_clock.h"
#include "apps/measure/save_tensors.h"
#include "gradflow/kernels/error.h"

namespace gradflow::app {
namespace {

using Clock = std::chrono::steady_clock;

// The peer's setting: learning rate small enough that no usual network diverges while it is timed.
OptimizerConfig optimizer_config(const std::string& name) {
  using kernels::OptimizerKind;
  OptimizerConfig c{.learning_rate = 1e-4, .momentum = 0.9, .weight_decay = 5e-4};
  for (const auto kind :
       {OptimizerKind::sgd, OptimizerKind::nesterov, OptimizerKind::adam, OptimizerKind::adamw})
    if (name == name_of(kind)) c.kind = kind;
  return c;
}

void summarize(Timing& t) {
  t.minimum = std::ranges::min(t.samples);
  t.maximum = std::ranges::max(t.samples);
  t.median = median_of(t.samples);
}

// A sample of one network after the other: what the previous one left in the caches is used up first.
double sample(StepClock& stepper, int steps, bool alternate) {
  if (alternate) stepper.seconds(1);
  return stepper.seconds(steps);
}

// At least three steps and a fifth of a second: libraries set themselves up, clocks rise, a recording is made.
double warm_up(StepClock& stepper) {
  double best = stepper.seconds(1);
  const auto start = Clock::now();
  for (int i = 0; i < 3 || Clock::now() - start < std::chrono::milliseconds(200); ++i)
    best = std::min(best, stepper.seconds(1));
  return best;
}

// `plain`: the same step without probes, null if it is not wanted.
void time_steps(Executor& executor, StepClock& stepper, StepClock* plain, const StepOptions& o, StepResult& r) {
  if (plain) warm_up(*plain);
  const int steps = steps_of_sample(executor.backend(), warm_up(stepper));
  r.step.steps = r.step_without_probes.steps = steps;
  if (o.profile_step > 0) {
    if (o.profile_step > 1) stepper.seconds(o.profile_step - 1);
    executor.backend().profile_start();
    stepper.seconds(1);
    executor.backend().profile_stop();
  }
  const MachineLoad load;
  for (int i = 0; i < o.repeat; ++i) {
    if (plain) r.step_without_probes.samples.push_back(sample(*plain, steps, true));
    r.step.samples.push_back(sample(stepper, steps, plain != nullptr));
  }
  r.load = load.since_start();
  summarize(r.step);
  if (plain) summarize(r.step_without_probes);
}

void add(LaunchTiming& sum, const LaunchTiming& t, const std::string& name, const std::string& group) {
  sum.launches = sum.name.empty() ? 1 : sum.launches + 1;
  sum.name = name, sum.group = group;
  sum.seconds += t.seconds;
  sum.floor += t.floor;
  sum.cost.bytes += t.cost.bytes;
  sum.cost.flops += t.cost.flops;
}

void add_launches(const Executor& executor, const LaunchTimes& times, StepResult& r) {
  r.nothing_seconds = times.nothing;
  std::map<std::string, LaunchTiming> groups;
  std::map<NodeId, LaunchTiming> layers;  // nodes are numbered in order
  std::vector<LaunchTiming> others;       // launches of no layer: an update of all parameters, a probe's own
  for (std::size_t i = 0; i < times.launches.size(); ++i) {
    const Launch& l = executor.plan().launches[i];
    const std::string type = l.node == kNobody ? "" : std::string(executor.graph().node(l.node).layer->type());
    const bool pass = l.kind == LaunchKind::forward || l.kind == LaunchKind::backward;
    const std::string group = pass ? type + " " + name_of(l.kind) : name_of(l.kind);
    const LaunchTiming t = {
        .name = executor.launch_name(l),
        .group = group,
        .launches = 1,
        .seconds = times.launches[i],
        .floor = std::max(l.cost.flops / r.ceilings.matmul_flops, l.cost.bytes / r.ceilings.triad_bytes),
        .cost = l.cost,
        .description = executor.launch_description(l)};
    r.launches.push_back(t);
    add(groups[group], t, group, group);
    if (l.node == kNobody) {
      others.push_back(t);
    } else {
      add(layers[l.node], t, executor.graph().node(l.node).name, type);
    }
    r.launch_seconds += t.seconds;
    r.floor += t.floor;
    r.cost.bytes += t.cost.bytes;
    r.cost.flops += t.cost.flops;
  }
  for (auto& [name, group] : groups) r.groups.push_back(std::move(group));
  std::ranges::sort(r.groups, std::greater(), &LaunchTiming::seconds);
  for (auto& [node, layer] : layers) r.layers.push_back(std::move(layer));
  r.layers.insert(r.layers.end(), others.begin(), others.end());
}

StepMemory memory_of(const Plan& plan, const Optimizer* optimizer) {
  StepMemory m{.arena = plan.arena_bytes,
               .arena_without_reuse = plan.bytes_without_reuse,
               .parameters = plan.parameter_bytes,
               .copies = plan.parameter_copy_bytes,
               .states = plan.state_bytes};
  if (!optimizer) return m;
  for (const auto moments : {optimizer->first_moments(), optimizer->second_moments()})
    for (const Tensor& t : moments)
      if (t.data) m.moments += t.bytes();
  return m;
}

double mean(const kernels::LossResult& loss) {
  return loss.rows ? loss.loss_sum / static_cast<double>(loss.rows) : 0;
}

}  // namespace

StepResult bench_step(const StepOptions& o) {
  const Network network = open_network(o.network);
  std::optional<Optimizer> optimizer;
  if (o.optimizer != "none") optimizer.emplace(*network.parameters, optimizer_config(o.optimizer));
  Optimizer* const updates = optimizer ? &*optimizer : nullptr;
  ExecutorOptions options;
  options.record = o.record;
  options.fuse = !o.no_fuse;
  std::unique_ptr<Executor> plain;
  if (o.probes) {
    plain = network.make_executor(o.network, updates, options);
    network.load_first_batch(*plain, o.network.seed);
    options.probes = all_scalar_probes(network.model.graph, true, updates != nullptr);
  }
  const std::unique_ptr<Executor> owner = network.make_executor(o.network, updates, options);
  Executor& executor = *owner;
  network.load_first_batch(executor, o.network.seed);

  StepResult r;
  const kernels::DeviceInfo& device = network.device->info();
  r.device = device.name, r.device_model = device.model, r.libraries = device.libraries,
  r.precision = device.precision;
  r.threads = device.threads;
  r.clock = clock_text(network.device->is_host());
  r.parameters = network.model.graph.parameter_count();
  r.images = network.model.spec.conv.has_value();
  r.own_layers = network.model.graph.nodes().size();
  r.run_layers = executor.graph().nodes().size();
  r.memory = memory_of(executor.plan(), updates);
  r.probes = options.probes.size();
  if (!o.tensors.empty())
    save_inputs(o.tensors, executor, *network.parameters, {{"model", o.network.model}, {"data", o.network.data}});
  std::int64_t count = 0;
  const auto step_of = [&](Executor& e) {  // networks that share an optimizer share the count of its steps
    return [&] {
      if (updates) updates->set_step(++count);
      e.step();
    };
  };
  StepClock stepper(executor.backend(), step_of(executor));
  std::optional<StepClock> without;
  if (plain) without.emplace(plain->backend(), step_of(*plain));
  stepper.seconds(1);
  r.first_loss = mean(executor.take_loss());
  time_steps(executor, stepper, without ? &*without : nullptr, o, r);
  executor.take_loss();
  r.taken = network.taken_bytes();
  r.ceilings = measure_ceilings(*network.device, network.model.graph.dtype());
  add_launches(executor, time_launches(executor), r);
  r.loss = mean(executor.take_loss());
  r.disturbance =
      disturbance(r.load, r.step.minimum, r.step.median, network.device->is_host() ? r.threads : 1);
  return r;
}

}  // namespace gradflow::app
