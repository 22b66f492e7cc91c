// Times training steps of one network on one batch.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "apps/bench/ceilings.h"
#include "apps/bench/machine_load.h"
#include "apps/common/network.h"

namespace gradflow::app {

struct StepOptions {
  NetworkOptions network;
  std::string optimizer = "sgd";  // none, sgd, nesterov, adam, adamw
  bool probes = false;            // all scalar statistics of every tensor
  int repeat = 50;
  bool no_fuse = false;    // keep layers apart that could be one pass
  bool record = true;      // replay the step as one recording where the device can
  std::string tensors;     // a file for the batch and the weights the first step begins with; empty: none
  int profile_step = 0;    // > 0: a profiler collects this step alone, counted after the warm-up
};

// Seconds a step; every sample is the mean of `steps` steps.
struct Timing {
  int steps = 1;
  std::vector<double> samples;
  double median = 0, minimum = 0, maximum = 0;
};

struct LaunchTiming {
  std::string name, group;  // "block07.linear backward", "linear backward"
  int launches = 1;
  double seconds = 0;  // the median of several passes, each launch timed by itself
  double floor = 0;    // of them, what the ceilings allow: each launch at the slower of its FLOPs and its bytes
  Cost cost;
  std::string description;  // of one launch: how a vendor's library runs it
};

// Bytes the step needs on the device: all that the plan and the optimizer hold. What vendor libraries allocate for
// themselves and the data set are not in it.
struct StepMemory {
  std::size_t arena = 0, arena_without_reuse = 0;
  std::size_t parameters = 0, copies = 0, states = 0, moments = 0;

  std::size_t total() const { return arena + parameters + copies + states + moments; }
};

struct StepResult {
  std::string device, device_model, libraries, precision;
  std::string clock;  // "the steady clock", "device events": what all times below are by
  int threads = 1;
  std::size_t parameters = 0, probes = 0;
  bool images = false;  // a sample is an image
  std::size_t own_layers = 0, run_layers = 0;  // of the network, and as it ran: fewer where some were fused
  StepMemory memory;    // of the step that was timed, with its probes
  std::optional<std::size_t> taken;  // Network::taken_bytes() behind the steps
  double first_loss = 0;  // of the batch before any update
  double loss = 0;  // after all steps; not finite means that the timing is of a broken network
  Timing step;
  // With `probes`: of a step planned without them, which may be fused further; samples of both kinds alternate. No
  // samples otherwise.
  Timing step_without_probes;
  std::vector<LaunchTiming> launches;  // in order
  std::vector<LaunchTiming> groups;    // by layer type and kind, slowest first
  std::vector<LaunchTiming> layers;    // by layer, in order: all its launches
  double launch_seconds = 0;           // sum over the launches
  double nothing_seconds = 0;          // what the clock shows where nothing is between two readings
  double floor = 0;                    // sum over the launches
  Cost cost;
  Ceilings ceilings;
  MachineLoad::Report load;
  std::string disturbance;  // empty if undisturbed
};

StepResult bench_step(const StepOptions& options);

std::string step_text(const StepOptions& options, const StepResult& r, bool all_launches, std::size_t width);
// Object "gradflow-bench/1": context, the step's times in milliseconds, its floor, memory, ceilings, load, groups, layers,
// launches.
std::string step_json(const StepOptions& options, const StepResult& r);

}  // namespace gradflow::app
