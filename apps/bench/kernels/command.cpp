#include "apps/bench/kernels/command.h"

#include <fmt/format.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <iostream>
#include <memory>
#include <optional>

#include "apps/bench/kernels/bench_kernels.h"
#include "apps/bench/kernels/operands.h"
#include "apps/bench/profile_command.h"
#include "apps/common/network.h"
#include "apps/common/option_checks.h"
#include "apps/common/text_table.h"
#include "apps/terminal/progress.h"
#include "gradflow/engine/device.h"
#include "gradflow/engine/file.h"
#include "gradflow/engine/safetensors.h"
#include "gradflow/kernels/error.h"

namespace gradflow::app {
namespace {

constexpr std::size_t kMostKernels = 12;  // that a profiler's command line names

struct Options {
  KernelBenchOptions bench;
  std::string json, csv, svg, numbers;
  bool list = false, print_commands = false;
};

int list_cases(const Options& o) {
  const auto backend = open_device(o.bench.device);
  for (const KernelCase& c : choose_cases(o.bench, *backend)) fmt::print("{}\n", c.name);
  return 0;
}

void save_numbers(const std::string& file) {
  const std::vector<float> numbers = operand_numbers();
  write_safetensors(file, std::vector{TensorToStore{.name = "numbers", .type = StoredType::f32, .shape = {numbers.size()},
                                                     .data = numbers.data()}});
}

int run(const Options& o) {
  check_device_name(o.bench.device);
  const std::initializer_list<OutputFile> outputs = {{"--json", o.json}, {"--csv", o.csv}, {"--svg", o.svg}, {"--save-numbers", o.numbers}};
  if (o.list) {
    for (const OutputFile& file : outputs)
      if (!file.path.empty()) throw UserError(fmt::format("--list measures nothing that {} could hold: leave one of them out", file.option));
    return list_cases(o);
  }
  require_outputs(outputs);
  std::optional<Progress> progress;
  const KernelBenchResult r =
      bench_kernels(o.bench, [&](std::size_t done, std::size_t total, const std::string& name) {
        if (!progress)
          progress.emplace(std::cerr, detect_terminal(STDERR_FILENO), static_cast<double>(total));
        progress->update(static_cast<double>(done), name);
      });
  if (progress) progress->finish();
  if (!o.json.empty()) write_file_atomically(o.json, kernels_json(o.bench, r));
  if (!o.csv.empty()) write_file_atomically(o.csv, kernels_csv(r));
  if (!o.numbers.empty()) save_numbers(o.numbers);
  if (!o.svg.empty()) write_file_atomically(o.svg, kernels_svg(r));
  bool printed = true;  // unless something else goes to the terminal
  for (const std::string& file : {o.json, o.csv, o.svg, o.numbers}) printed = printed && file != "/dev/stdout";
  if (printed) fmt::print("{}", kernels_text(r, terminal_width(stdout)));
  if (o.print_commands) {
    ProfileTarget target{.command = command_line(), .on_host = r.device.name == "cpu"};
    for (const auto* rows : {&r.rows, &r.rejected})
      for (const KernelRow& row : *rows)
        for (const std::string& kernel : row.kernels)
          if (std::ranges::find(target.kernels, kernel) == target.kernels.end())
            target.kernels.push_back(kernel);
    if (target.kernels.size() > kMostKernels) target.kernels.clear();  // every kernel, then
    fmt::print("\n{}", profile_commands(target));
  }
  if (r.rejected.empty()) return 0;
  std::fflush(stdout);
  fmt::print(stderr, "gradflow: {} of {} results lie above what the memory can do, and were not recorded\n",
             r.rejected.size(), r.rejected.size() + r.rows.size());
  return 1;
}

}  // namespace

void add_bench_kernels(CLI::App& bench, std::function<int()>& run_it) {
  CLI::App* command = bench.add_subcommand("kernels", "time every kernel beside the memory's speed");
  const auto o = std::make_shared<Options>();
  command->add_option("--only", o->bench.only, "kernels whose name this regular expression matches anywhere")
      ->type_name("REGEX");
  command->add_option("--size", o->bench.sizes, "elements, e.g. 2^26,1000000 (default: small to large)")
      ->delimiter(',')
      ->allow_extra_args(false)
      ->type_name("N,...");
  command->add_option("--dtype", o->bench.dtypes, "f32, bf16, f64 (default: f32, and bf16 where there is)")
      ->delimiter(',')
      ->allow_extra_args(false)
      ->type_name("T,...");
  command->add_option("--device", o->bench.device, "auto, cpu, cuda or cuda:N")
      ->type_name("D")
      ->capture_default_str();
  command->add_option("--repeat", o->bench.repeat, "samples, each of about 1 ms or one launch")
      ->check(whole_number(1, 1000000))
      ->type_name("N")
      ->capture_default_str();
  add_output_file(*command, "--json", o->json, "write everything as JSON; -: instead of the table");
  add_output_file(*command, "--csv", o->csv, "write the rows as CSV");
  add_output_file(*command, "--save-numbers", o->numbers,
                  "write the numbers that operands hold, one after another and again (safetensors)");
  add_output_file(*command, "--svg", o->svg, "write a picture: bars of the share of the bandwidth");
  command->add_flag("--list", o->list, "print the names that --only would choose, measure nothing");
  command->add_flag("--profile-window", o->bench.profile_window,
                    "a profiler that waits for it collects the timed launches alone");
  command->add_flag("--print-profile-command", o->print_commands,
                    "print the nsys and ncu lines for this run");
  command->footer(
      "Cold: so many copies of the operands in turn that no cache holds them. Warm: the same ones again and\n"
      "again. % copy is the share of a copy's bandwidth (of y = a + b on the host: % triad), measured in "
      "the\n"
      "same process. A result above what the memory was seen to do is refused: it is not recorded, and the\n"
      "exit code is 1.\n"
      "launch-bound: starting it takes longer than its bytes would.\n"
      "Examples:\n"
      "  gradflow bench kernels\n"
      "  gradflow bench kernels --only relu_backward --size 2^26 --json relu.json\n"
      "  gradflow bench kernels --device cpu --only '^(sgd|adamw)_update_f32' --svg updates.svg");
  command->callback([&run_it, o] { run_it = [o] { return run(*o); }; });
}

}  // namespace gradflow::app
