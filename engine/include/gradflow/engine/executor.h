// Executor: a plan bound to a device. forward(), step(), and what they measured.
//
// Construction plans, allocates one arena, prepares vendor objects and fixes every address; after that a
// step allocates nothing. One stream, launches in plan order. On CUDA the training step is recorded once
// and replayed (option `record`); both ways give the same bits.
//
// The backend, the parameter store and the optimizer must outlive the executor; the graph need not.
// Use by one thread at a time; executors that share a parameter store run one after the other.
#pragma once

#include <cstdint>
#include <functional>
#include <limits>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "gradflow/engine/graph.h"
#include "gradflow/engine/memory.h"
#include "gradflow/engine/optimizer.h"
#include "gradflow/engine/parameters.h"
#include "gradflow/engine/plan.h"
#include "gradflow/engine/probe.h"

namespace gradflow {

enum class Probing : std::uint8_t {
  off,      // probe launches and sinks are left out
  scalars,  // the scalars of `Stats` only: cheap enough for every step
  all,      // histograms, splits and alive flags too
};

struct ExecutorOptions {
  bool training = true;  // false: forward only
  bool retain = false;   // every value and gradient stays readable until the next step
  bool reuse = true;
  std::vector<ValueId> input_gradients;
  std::vector<ProbeRequest> probes;
  bool fuse_probes = true;
  bool fuse = true;      // layers that can be one pass become one (fused_for() says what stays); none with `retain`
  bool fuse_as_device = false;  // on the host, too, what probes make cost more there (FusedStats::between_costs_host)
  bool record = true;    // replay the step as one recording where the backend can
  int history = 1;       // probe readings of this many steps are kept on the device (a ring)
  // Bytes that parameters, moments and arena may take together; what the device has free is a limit anyway.
  std::size_t memory_limit = std::numeric_limits<std::size_t>::max();
};

// The times of a step's launches, by the backend's timer. In seconds.
struct LaunchTimes {
  std::vector<double> launches;  // in the plan's order
  double nothing = 0;            // two points of the queue with nothing between them: a part of each of the above
  double queueing = 0;           // until the host had queued all, by the host's clock
};

class Executor {
 public:
  // With an optimizer, step() also updates; it must belong to `parameters`. OutOfMemory (out_of_memory.h) if the
  // arena does not fit.
  Executor(Graph graph, ParameterStore& parameters, Optimizer* optimizer = nullptr, ExecutorOptions options = {});
  ~Executor();
  Executor(const Executor&) = delete;
  Executor& operator=(const Executor&) = delete;

  // What the arena of such an executor would take; nothing is allocated.
  static std::size_t arena_bytes(Graph graph, Backend& backend, bool with_optimizer, const ExecutorOptions& options);

  const Graph& graph() const noexcept;  // as it runs: fused, its values numbered as in the graph given
  const Plan& plan() const noexcept;
  const ExecutorOptions& options() const noexcept;
  Backend& backend() const noexcept;
  Optimizer* optimizer() const noexcept;  // null: step() updates nothing

  // Where to put a batch, by input name; contents survive the step.
  Tensor input(std::string_view name) const;
  // Device tensors; null data if the plan has no such tensor. Readable after a step only with `retain`
  // (inputs and unread outputs always are).
  Tensor value(ValueId v) const;
  Tensor gradient(ValueId v) const;
  Tensor parameter_gradient(ParameterId p) const;

  void forward();   // evaluation mode of a forward-only executor, training mode otherwise
  void backward();  // needs a forward() before it: InternalError otherwise
  void step();      // forward, backward and, with an optimizer, the update

  // Queues what fills the inputs (Feed::gather()), from now on in front of every forward() and step(), and recorded
  // with the step: so it must queue the same launches with the same pointers each time, and copy nothing from the
  // host. Empty: nothing, as at first.
  void set_input_launches(std::function<void()> launches);

  void set_probing(Probing level) noexcept;  // `all` at first

  // Loss and hits summed since the last call, over every forward; resets both. Waits for the device.
  kernels::LossResult take_loss();

  // Readings of the last pass in which probing was not off, in the order of the requests. One copy.
  std::vector<ProbeReading> read_probes();
  // The last `history` steps with their scalars only, oldest first: [step][request]. One copy.
  std::vector<std::vector<Stats>> read_history();
  // Alive flags of an `alive` probe since the last reset: 1 where the unit was > 0 on some row.
  std::vector<std::uint8_t> read_alive(int probe) const;
  void reset_alive();

  // "block07.relu backward"
  std::string launch_name(const Launch& launch) const;
  // How a vendor's library runs it (Prepared), where it tells; else empty.
  std::string launch_description(const Launch& launch) const;
  // Runs the launches of one step one by one, a timer around each (for tables, not for totals); nothing is waited for
  // before all are queued. `lead` comes first, untimed: what it queues keeps a device busy while the host queues the
  // launches, which else would wait for the host, and their times with them.
  LaunchTimes time_launches(const std::function<void()>& lead = {});

 private:
  struct State;
  std::unique_ptr<State> s_;
};

}  // namespace gradflow
