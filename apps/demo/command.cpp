#include "apps/demo/command.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <filesystem>
#include <iostream>
#include <memory>
#include <string>

#include "apps/common/network.h"
#include "apps/common/option_checks.h"
#include "apps/common/output_folder.h"
#include "apps/common/shell_words.h"
#include "apps/report/terminal.h"
#include "apps/report/write.h"
#include "apps/study/study.h"
#include "apps/terminal/progress.h"
#include "gradflow/engine/device.h"
#include "gradflow/engine/file.h"
#include "gradflow/engine/interrupt.h"

namespace gradflow::app {
namespace {

struct Options {
  StudyOptions study;
  std::string pair = "auto";
  std::string out = "gradflow-report";
  bool quick = false;
};

// A quarter of the steps and seeds: the curves at initialization hold, the accuracies are lower.
void make_quick(StudyOptions& o) {
  o.quick = true;
  o.steps = 80;
  o.init_seeds = 2;
  o.moments = {1, 2, 5, 20};
}

void print_study(const StudyResult& study) {
  const Terminal terminal = detect_terminal(1);
  constexpr int kMost = 100;
  const int columns = terminal.interactive ? std::min(terminal.columns, kMost) : kMost;
  fmt::print("{}", terminal_report(study, {.color = terminal.color, .charset = locale_charset(), .columns = columns}));
}

PairSize pair_size(const std::string& name) {
  return name == "full" ? PairSize::full : name == "reduced" ? PairSize::reduced : name == "off" ? PairSize::off : PairSize::automatic;
}

int run_demo(Options o) {
  o.study.moments = {1, 2, 5, 10, 20, 50, 100, 200};
  if (o.quick) make_quick(o.study);
  check_device_name(o.study.device);
  // Before the work: at its end would be too late to learn of a bad name.
  const OutputFolder folder(o.out), figures(std::filesystem::path(o.out) / "figures");

  const InterruptGuard guard;
  StudyResult study;
  {
    Progress progress(std::cerr, detect_terminal(2), 1.0);
    study = run_study(o.study, pair_size(o.pair), [&](double done, std::string_view what) { progress.update(done, what); });
  }
  study.command = fmt::format("gradflow demo --device {} --data {} --seed {}{}{}", study.device, shell_word(o.study.data), o.study.seed,
                              o.pair == "auto" ? "" : " --pair " + o.pair, o.quick ? " --quick" : "");
  if (study.networks.empty()) {
    fmt::print(stderr, "gradflow: interrupted before the first network was measured; nothing was written\n");
    return guard.exit_code();
  }
  write_report(study, o.out);
  print_study(study);
  const std::size_t networks = study.networks.size() + (study.pair ? study.pair->networks.size() : 0);
  fmt::print("\n{} networks in {}. The report: {}\n", networks, duration_text(study.seconds),
             (std::filesystem::path(o.out) / "report.html").string());
  if (study.interrupted) fmt::print("Interrupted: the report holds what was finished.\n");
  return guard.exit_code();
}

}  // namespace

void add_demo(CLI::App& app, std::function<int()>& run) {
  CLI::App* command = app.add_subcommand("demo", "where did the gradient go? 27 networks compared, with a report");
  const auto o = std::make_shared<Options>();
  command->add_option("--device", o->study.device, "auto, cpu, cuda or cuda:N")->type_name("D")->capture_default_str();
  command->add_option("--out", o->out, "folder for report.html, report.json, layers.csv, curves.csv and figures")->type_name("DIR")->capture_default_str();
  command->add_option("--data", o->study.data, kDataHelp)->type_name("SPEC")->capture_default_str();
  command->add_option("--seed", o->study.seed, "of weights and batches")->check(whole_number(0))->type_name("N")->capture_default_str();
  command->add_option("--pair", o->pair, "plain-56 and ResNet-56, too: full size, reduced (images of half the size), off, or\nauto: full on a GPU, reduced on a CPU")
      ->check(one_of({"auto", "full", "reduced", "off"}))
      ->type_name("S")
      ->capture_default_str();
  command->add_flag("--quick", o->quick, "fewer steps and seeds: about a third of the time");
  command->footer(
      "{plain, residual} x {sigmoid, tanh, ReLU} x {Xavier, He} x {no norm, batch norm}, 50 layers each, and a\n"
      "shallow network as the yardstick. All share their weights and batches bit for bit; only the factor differs.\n"
      "Then plain-56 and ResNet-56 of He et al. 2015 with batch norm in their first 120 steps (400 on a GPU, 20 with\n"
      "--quick).\n\n"
      "Examples:\n"
      "  gradflow demo\n"
      "  gradflow demo --quick --out /tmp/report\n"
      "  gradflow demo --device cuda:1 --seed 7\n");
  command->callback([o, &run] { run = [o] { return run_demo(*o); }; });
}

void add_report(CLI::App& app, std::function<int()>& run) {
  CLI::App* command = app.add_subcommand("report", "write the report of an earlier study again, from its report.json");
  struct Paths {
    std::string from, out = "gradflow-report";
  };
  const auto o = std::make_shared<Paths>();
  command->add_option("--from", o->from, "report.json of a study")->type_name("FILE")->required();
  command->add_option("--out", o->out, "folder for report.html, layers.csv, curves.csv and figures")->type_name("DIR")->capture_default_str();
  command->footer("Example:\n  gradflow report --from gradflow-report/report.json --out again\n");
  command->callback([o, &run] {
    run = [o] {
      const OutputFolder folder(o->out), figures(std::filesystem::path(o->out) / "figures");  // they go again if nothing comes to lie there
      print_study(render_from_json(o->from, o->out));
      fmt::print("\nThe report: {}\n", (std::filesystem::path(o->out) / "report.html").string());
      return 0;
    };
  });
}

}  // namespace gradflow::app
