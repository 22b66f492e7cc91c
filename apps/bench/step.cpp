#include "apps/bench/step.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <map>
#include <optional>

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

class Stepper {
 public:
  Stepper(Executor& executor, Optimizer* optimizer) : executor_(executor), optimizer_(optimizer) {}

  double seconds(int steps) {  // of one step, as the mean of so many
    executor_.backend().synchronize();
    const auto start = Clock::now();
    for (int i = 0; i < steps; ++i) {
      if (optimizer_) optimizer_->set_step(++count_);
      executor_.step();
    }
    executor_.backend().synchronize();
    return std::chrono::duration<double>(Clock::now() - start).count() / steps;
  }

 private:
  Executor& executor_;
  Optimizer* optimizer_;
  std::int64_t count_ = 0;
};

void summarize(Timing& t) {
  std::vector<double> sorted = t.samples;
  std::ranges::sort(sorted);
  const std::size_t n = sorted.size();
  t.minimum = sorted.front();
  t.maximum = sorted.back();
  t.median = n % 2 ? sorted[n / 2] : (sorted[n / 2 - 1] + sorted[n / 2]) / 2;
}

void time_steps(Executor& executor, Stepper& stepper, const StepOptions& o, StepResult& r) {
  // At least three steps and a fifth of a second: libraries set themselves up, clocks rise, a recording is
  // made.
  double best = stepper.seconds(1);
  const auto start = Clock::now();
  for (int i = 0; i < 3 || Clock::now() - start < std::chrono::milliseconds(200); ++i)
    best = std::min(best, stepper.seconds(1));
  // A sample lasts about 2 ms or more, so that the clock and the wait at its end do not count.
  const int steps = std::clamp(static_cast<int>(std::ceil(2e-3 / std::max(best, 1e-9))), 1, 10000);
  r.step.steps = r.step_without_probes.steps = steps;
  if (o.probes) {
    executor.set_probing(Probing::off);
    for (int i = 0; i < 3; ++i) stepper.seconds(steps);
  }
  if (o.profile_step > 0) {
    if (o.profile_step > 1) stepper.seconds(o.profile_step - 1);
    executor.backend().profile_start();
    stepper.seconds(1);
    executor.backend().profile_stop();
  }
  const MachineLoad load;
  for (int i = 0; i < o.repeat; ++i) {
    if (o.probes) {
      executor.set_probing(Probing::off);
      r.step_without_probes.samples.push_back(stepper.seconds(steps));
      executor.set_probing(Probing::all);
    }
    r.step.samples.push_back(stepper.seconds(steps));
  }
  r.load = load.since_start();
  summarize(r.step);
  if (o.probes) summarize(r.step_without_probes);
}

void time_launches(Executor& executor, StepResult& r) {
  std::vector<double> best;
  for (int run = 0; run < 5; ++run) {
    const std::vector<double> seconds = executor.time_launches();
    if (best.empty()) best = seconds;
    for (std::size_t i = 0; i < best.size(); ++i) best[i] = std::min(best[i], seconds[i]);
  }
  std::map<std::string, LaunchTiming> groups;
  for (std::size_t i = 0; i < best.size(); ++i) {
    const Launch& l = executor.plan().launches[i];
    std::string group = name_of(l.kind);
    if (l.kind == LaunchKind::forward || l.kind == LaunchKind::backward)
      group = std::string(executor.graph().node(l.node).layer->type()) + " " + group;
    r.launches.push_back(
        {.name = executor.launch_name(l), .group = group, .launches = 1, .seconds = best[i], .cost = l.cost});
    LaunchTiming& g = groups[group];
    g.launches = g.name.empty() ? 1 : g.launches + 1;
    g.name = g.group = group;
    g.seconds += best[i];
    g.cost.bytes += l.cost.bytes;
    g.cost.flops += l.cost.flops;
    r.launch_seconds += best[i];
    r.cost.bytes += l.cost.bytes;
    r.cost.flops += l.cost.flops;
  }
  for (auto& [name, group] : groups) r.groups.push_back(std::move(group));
  std::ranges::sort(r.groups, std::greater(), &LaunchTiming::seconds);
}

}  // namespace

StepResult bench_step(const StepOptions& o) {
  const Network network = open_network(o.network);
  std::optional<Optimizer> optimizer;
  if (o.optimizer != "none") optimizer.emplace(*network.parameters, optimizer_config(o.optimizer));
  Optimizer* const updates = optimizer ? &*optimizer : nullptr;
  ExecutorOptions options;
  options.record = o.record;
  if (o.probes) options.probes = all_scalar_probes(network.model.graph, true, updates != nullptr);
  const std::unique_ptr<Executor> owner = network.make_executor(o.network, updates, options);
  Executor& executor = *owner;
  network.load_first_batch(executor, o.network.seed);

  StepResult r;
  const kernels::DeviceInfo& device = network.device->info();
  r.device = device.name, r.device_model = device.model, r.libraries = device.libraries,
  r.precision = device.precision;
  r.threads = device.threads;
  r.parameters = network.model.graph.parameter_count();
  r.arena_bytes = executor.plan().arena_bytes;
  r.probes = options.probes.size();
  Stepper stepper(executor, updates);
  time_steps(executor, stepper, o, r);
  executor.take_loss();
  time_launches(executor, r);
  const kernels::LossResult loss = executor.take_loss();
  r.loss = loss.rows ? loss.loss_sum / static_cast<double>(loss.rows) : 0;
  r.ceilings = measure_ceilings(*network.device, network.model.graph.dtype());
  r.disturbance =
      disturbance(r.load, r.step.minimum, r.step.median, network.device->is_host() ? r.threads : 1);
  return r;
}

}  // namespace gradflow::app
