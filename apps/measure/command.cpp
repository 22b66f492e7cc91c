#include "apps/measure/command.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <memory>
#include <string>

#include "apps/common/network.h"
#include "apps/common/text_table.h"
#include "apps/measure/measurement.h"
#include "apps/measure/print.h"
#include "apps/measure/save_tensors.h"
#include "gradflow/engine/file.h"
#include "gradflow/engine/text.h"
#include "gradflow/engine/version.h"
#include "gradflow/engine/weights.h"

namespace gradflow::app {
namespace {

struct Options {
  NetworkOptions network;
  std::string weights, json, tensors;
};

Metadata metadata_of(const Options& o, const Measurement& m) {
  return {{"model", o.network.model},
          {"data", o.network.data},
          {"batch", fmt::format("{}", o.network.batch)},
          {"seed", fmt::format("{}", o.network.seed)},
          {"dtype", o.network.precision.dtype},
          {"weights", o.weights},
          {"loss", fmt::format("{}", m.loss)},
          {"gradflow", fmt::format("{} {}", version(), git_revision())}};
}

int run_measure(const Options& o) {
  require_outputs({{"--json", o.json}, {"--save-tensors", o.tensors}});
  const Network network = open_network(o.network);
  if (!o.weights.empty()) load_weights(o.weights, *network.parameters);
  ExecutorOptions options;
  options.retain = !o.tensors.empty();
  options.fuse = false;  // readings name the layers as they were built
  options.probes = measuring_probes(network.model);
  const std::unique_ptr<Executor> owner = network.make_executor(o.network, nullptr, options);
  Executor& executor = *owner;
  network.load_first_batch(executor, o.network.seed);
  const Measurement m = measure(executor);

  if (!o.tensors.empty()) save_tensors(o.tensors, executor, *network.parameters, metadata_of(o, m));
  if (!o.json.empty()) write_file_atomically(o.json, measurement_json(m, o.network, o.weights, network));
  if (o.json == "/dev/stdout" || o.tensors == "/dev/stdout") return 0;
  fmt::print(
      "{}, {} parameters\n{}, batch {}, seed {}, {} on {}: {}\nloss {:.6g}, accuracy {:.1f} % {}\n\n{}",
      o.network.model, network.model.graph.parameter_count(), o.network.data, o.network.batch, o.network.seed,
      storage_text(parse_dtype(o.network.precision.dtype)), network.device->info().model,
      network.device->info().precision, m.loss, 100 * m.accuracy,
      o.weights.empty() ? "before any training" : "with the weights of " + quote(o.weights, 400),
      measurement_tables(m, terminal_width(stdout)));
  return 0;
}

}  // namespace

void add_measure(CLI::App& app, std::function<int()>& run) {
  CLI::App* command =
      app.add_subcommand("measure", "one forward and backward, at initialization or with given weights, tensor by tensor");
  const auto o = std::make_shared<Options>();
  add_network_options(*command, o->network);
  command
      ->add_option("--weights", o->weights,
                   "take the weights from a safetensors file: a checkpoint, or a PyTorch state_dict (of\n"
                   "torchvision's resnet18 .. resnet152)")
      ->type_name("FILE");
  add_output_file(*command, "--json", o->json, "write all statistics as JSON; -: instead of the tables");
  add_output_file(*command, "--save-tensors", o->tensors,
                  "write batch, parameters, activations, gradients (safetensors)");
  command->footer(
      "Models:\n" + std::string(model_help()) +
      "\nExamples:\n"
      "  gradflow measure --model mlp:depth=50,act=sigmoid,init=xavier\n"
      "  gradflow measure --model mlp:depth=50,act=tanh,skip=on --data synthetic --json stats.json\n"
      "  gradflow measure --model mlp:depth=8,width=64 --save-tensors step.safetensors\n"
      "  python3 -c 'from safetensors.numpy import load_file as f; print(*f(\"step.safetensors\"))'  # pip's safetensors");
  command->callback([&run, o] { run = [o] { return run_measure(*o); }; });
}

}  // namespace gradflow::app
