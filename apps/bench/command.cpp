#include "apps/bench/command.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <memory>
#include <string>

#include "apps/bench/kernels/command.h"
#include "apps/bench/profile_command.h"
#include "apps/bench/step.h"
#include "apps/common/network.h"
#include "apps/common/option_checks.h"
#include "apps/common/text_table.h"
#include "gradflow/engine/file.h"

namespace gradflow::app {
namespace {

struct Options {
  StepOptions step;
  std::string probes = "none", json;
  std::string graph = "on";
  bool launches = false, print_commands = false;
};

int run_step(Options o) {
  o.step.probes = o.probes == "all";
  o.step.record = o.graph == "on";
  require_outputs({{"--json", o.json}, {"--save-tensors", o.step.tensors}});
  const StepResult result = bench_step(o.step);
  if (!o.json.empty()) write_file_atomically(o.json, step_json(o.step, result));
  if (o.json != "/dev/stdout" && o.step.tensors != "/dev/stdout")
    fmt::print("{}", step_text(o.step, result, o.launches, terminal_width(stdout)));
  if (o.print_commands)
    fmt::print("\n{}", profile_commands({.command = command_line(), .step = true, .on_host = result.device == "cpu"}));
  return 0;
}

}  // namespace

void add_bench(CLI::App& app, std::function<int()>& run) {
  CLI::App* bench = app.add_subcommand("bench", "how fast it is: step or kernels");
  CLI::App* step = bench->add_subcommand("step", "time one training step, launch by launch");
  bench->footer("Examples:\n  gradflow bench step\n  gradflow bench kernels");
  bench->require_subcommand(0, 1);
  add_bench_kernels(*bench, run);
  const auto o = std::make_shared<Options>();
  o->step.network.model = "mlp:depth=50,width=256,act=relu";
  o->step.network.data = "synthetic:features=256";
  add_network_options(*step, o->step.network);
  step->get_option("--model")->required(false)->capture_default_str();
  step->add_option("--optimizer", o->step.optimizer,
                   "none, sgd (momentum 0.9, weight decay), nesterov, adam, adamw")
      ->check(one_of({"none", "sgd", "nesterov", "adam", "adamw"}))
      ->type_name("NAME")
      ->capture_default_str();
  step->add_option("--probes", o->probes,
                   "all: measure every tensor; steps planned with and without probes are timed in turn")
      ->check(one_of({"none", "all"}))
      ->type_name("none|all")
      ->capture_default_str();
  step->add_option("--repeat", o->step.repeat, "samples, each of as many steps as take 2 ms (on a GPU 20)")
      ->check(whole_number(1, 1000000))
      ->type_name("N")
      ->capture_default_str();
  step->add_flag("--launches", o->launches, "list every layer and launch, not the slowest only, and how libraries run convolutions");
  add_output_file(*step, "--json", o->json, "write everything as JSON; -: instead of the tables");
  add_no_fuse(*step, o->step.no_fuse);
  add_output_file(*step, "--save-tensors", o->step.tensors, "write the batch and the weights it begins with (safetensors)");
  step->add_option("--graph", o->graph, "off: launch by launch instead of replaying one recording")
      ->check(one_of({"on", "off"}))
      ->type_name("on|off")
      ->capture_default_str();
  step->add_option("--profile-window", o->step.profile_step,
                   "a profiler that waits for it collects one step: the STEP-th after the warm-up (1)")
      ->check(whole_number(1, 1000000))
      ->expected(0, 1)
      ->default_str("1")
      ->type_name("STEP");
  step->add_flag("--print-profile-command", o->print_commands, "print the nsys and ncu lines for this run");
  step->footer("Models:\n" + std::string(model_help()) +
               "\nExamples:\n"
               "  gradflow bench step --model mlp:depth=50,width=256 --batch 128\n"
               "  gradflow bench step --probes all --data synthetic --json bench.json\n"
               "  OMP_NUM_THREADS=1 gradflow bench step --optimizer adamw --repeat 200");
  step->callback([&run, o] { run = [o] { return run_step(*o); }; });
}

}  // namespace gradflow::app
