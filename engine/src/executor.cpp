#include "gradflow/engine/executor.h"

#include <fmt/format.h>

#include <array>
#include <chrono>
#include <utility>

#include "binding.h"
#include "gradflow/kernels/error.h"

namespace gradflow {

struct Executor::State {
  Binding binding;
  std::function<void()> input_launches;
  std::array<std::unique_ptr<kernels::Recording>, 3> recordings;  // by probing level
  int warm_steps = 0;
  Probing probing = Probing::all;
  bool forward_done = false;
  std::int64_t probed_steps = 0;

  State(Graph graph, ParameterStore& parameters, Optimizer* optimizer, ExecutorOptions options)
      : binding(std::move(graph), parameters, optimizer, std::move(options)) {}

  std::pair<int, int> whole() const { return {0, static_cast<int>(binding.plan.launches.size())}; }

  void fill_inputs() const {
    if (input_launches) input_launches();
  }
  void run(std::pair<int, int> range) {
    for (int i = range.first; i < range.second; ++i) binding.launch(i, probing);
  }
};

Executor::Executor(Graph graph, ParameterStore& parameters, Optimizer* optimizer, ExecutorOptions options)
    : s_(std::make_unique<State>(std::move(graph), parameters, optimizer, std::move(options))) {}
Executor::~Executor() = default;

std::size_t Executor::arena_bytes(Graph graph, Backend& backend, bool with_optimizer, const ExecutorOptions& options) {
  return plan_of(as_run(std::move(graph), options, backend), backend, with_optimizer, options).arena_bytes;
}

const Graph& Executor::graph() const noexcept { return s_->binding.graph; }
const Plan& Executor::plan() const noexcept { return s_->binding.plan; }
const ExecutorOptions& Executor::options() const noexcept { return s_->binding.options; }
Backend& Executor::backend() const noexcept { return s_->binding.backend; }
Optimizer* Executor::optimizer() const noexcept { return s_->binding.optimizer; }

Tensor Executor::input(std::string_view name) const {
  const ValueId v = graph().find_value(name);
  if (!graph().value(v).is_input()) throw UserError(fmt::format("'{}' is computed, not an input", name));
  return value(v);
}
Tensor Executor::value(ValueId v) const { return s_->binding.values.at(static_cast<std::size_t>(v)); }
Tensor Executor::gradient(ValueId v) const { return s_->binding.gradients.at(static_cast<std::size_t>(v)); }
Tensor Executor::parameter_gradient(ParameterId p) const {
  return s_->binding.parameter_gradients.at(static_cast<std::size_t>(p));
}

void Executor::set_input_launches(std::function<void()> launches) {
  s_->input_launches = std::move(launches);
  s_->recordings = {};
}

void Executor::set_probing(Probing level) noexcept { s_->probing = level; }

void Executor::forward() {
  if (s_->probing != Probing::off) s_->binding.clear_readings();
  s_->fill_inputs();
  s_->run({0, plan().first_backward});
  s_->forward_done = true;
}

void Executor::backward() {
  if (!options().training) throw InternalError("backward() on a forward-only executor");
  if (!std::exchange(s_->forward_done, false)) throw InternalError("backward() without a forward() before it");
  s_->run({plan().first_backward, s_->whole().second});
}

void Executor::step() {
  if (!options().training) throw InternalError("step() on a forward-only executor");
  if (s_->probing != Probing::off) s_->binding.clear_readings();
  // The first steps run launch by launch (libraries set themselves up); then one recording is replayed.
  auto& recording = s_->recordings[static_cast<std::size_t>(s_->probing)];
  if (options().record && !recording && s_->warm_steps >= 2)
    recording = backend().record([this] {
      s_->fill_inputs();
      s_->run(s_->whole());
    });
  if (recording) {
    recording->replay();
  } else {
    s_->fill_inputs();
    s_->run(s_->whole());
    ++s_->warm_steps;
  }
  s_->forward_done = false;
  if (s_->probing != Probing::off) s_->binding.push_history(s_->probed_steps++);
}

kernels::LossResult Executor::take_loss() {
  kernels::LossResult result;
  backend().copy_out(&result, s_->binding.loss.data(), sizeof result);
  backend().zero(s_->binding.loss.data(), sizeof result);
  return result;
}

std::vector<ProbeReading> Executor::read_probes() { return s_->binding.readings(); }
std::vector<std::vector<Stats>> Executor::read_history() { return s_->binding.history(s_->probed_steps); }
std::vector<std::uint8_t> Executor::read_alive(int probe) const { return s_->binding.alive(probe); }
void Executor::reset_alive() { s_->binding.clear_alive(); }
std::string Executor::launch_name(const Launch& launch) const { return s_->binding.name_of_launch(launch); }

std::string Executor::launch_description(const Launch& launch) const { return s_->binding.description_of_launch(launch); }

LaunchTimes Executor::time_launches(const std::function<void()>& lead) {
  using Clock = std::chrono::steady_clock;
  const int count = s_->whole().second;
  std::vector<std::unique_ptr<kernels::Timer>> timers;
  for (int i = 0; i <= count; ++i) timers.push_back(backend().make_timer());
  backend().synchronize();
  if (lead) lead();
  const auto start = Clock::now();
  for (int i = 0; i <= count; ++i) {
    kernels::Timer& timer = *timers[static_cast<std::size_t>(i)];
    timer.start();
    if (i < count) s_->binding.launch(i, s_->probing);
    timer.stop();
  }
  LaunchTimes times;
  times.queueing = std::chrono::duration<double>(Clock::now() - start).count();
  backend().synchronize();
  for (const auto& timer : timers) times.launches.push_back(timer->seconds());
  times.nothing = times.launches.back();
  times.launches.pop_back();
  return times;
}

}  // namespace gradflow
