// The gradflow program: reads the command line, runs one command, and turns every way that can end into an
// exit code: 0 done, 2 the caller's mistake (one line on standard error says which), 1 ours.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <exception>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "apps/bench/command.h"
#include "apps/common/spinning.h"
#include "apps/demo/command.h"
#include "apps/info/command.h"
#include "apps/measure/command.h"
#include "apps/plan/command.h"
#include "apps/train/command.h"
#include "gradflow/engine/file.h"
#include "gradflow/engine/text.h"
#include "gradflow/engine/version.h"
#include "gradflow/kernels/error.h"

namespace {

using gradflow::UserError;

void complain(std::string_view message, const std::string& help = {}) {
  std::string line =
      fmt::format("gradflow: {}{}", message, help.empty() ? "" : fmt::format(" (try {} --help)", help));
  std::ranges::replace_if(
      line, [](char c) { return static_cast<unsigned char>(c) < ' '; }, ' ');
  fmt::print(stderr, "{}\n", line);
}

// The command the user was in, and its full name: "gradflow bench step".
const CLI::App& innermost(const CLI::App& app, std::string& name) {
  const CLI::App* command = &app;
  name = "gradflow";
  while (!command->get_subcommands().empty()) {
    command = command->get_subcommands().front();
    name += " " + command->get_name();
  }
  return *command;
}

std::string suggestion(const std::string& wrong, const std::vector<std::string>& valid) {
  const std::string_view near = gradflow::nearest_name(wrong, valid);
  return near.empty() ? "" : fmt::format("; did you mean {}?", near);
}

// An option that was given nothing is a slip, such as a variable that is not set; it must not count as left out.
void refuse_empty_values(const CLI::App& command) {
  for (const CLI::Option* option : command.get_options())
    for (const std::string& value : option->results())
      if (value.empty() && option->get_items_expected_min() > 0)
        throw UserError(fmt::format("{}: the value is empty; leave the option out or give it one", option->get_name()));
  for (const CLI::App* sub : command.get_subcommands()) refuse_empty_values(*sub);
}

std::string unexpected(const CLI::App& command) {
  const std::vector<std::string> extras = command.remaining(true);
  const std::string wrong = extras.empty() ? "" : extras.front();
  std::vector<std::string> valid;
  if (wrong.starts_with('-')) {
    for (const CLI::Option* option : command.get_options())
      for (const std::string& name : option->get_lnames()) valid.push_back("--" + name);
    return fmt::format("unknown option {}{}", gradflow::quote(wrong),
                       suggestion(wrong.substr(0, wrong.find('=')), valid));
  }
  for (const CLI::App* sub : command.get_subcommands(nullptr)) valid.push_back(sub->get_name());
  if (valid.empty()) return fmt::format("unexpected argument {}", gradflow::quote(wrong));
  return fmt::format("unknown command {}{}", gradflow::quote(wrong), suggestion(wrong, valid));
}

// What the parser says of an option that has no value, too many, or one that a switch cannot take, in our words. Its
// text begins with the option's name, or ends with "NAME = VALUE".
std::string misused(const CLI::App& command, const CLI::ParseError& e) {
  const std::string_view said = e.what();
  for (const CLI::Option* option : command.get_options()) {
    const std::string& name = option->get_name();
    if (dynamic_cast<const CLI::ConversionError*>(&e) && said.find(name + " = ") != said.npos)
      return fmt::format("{}: {} is no value for it{}", name, gradflow::quote(said.substr(said.find(" = ") + 3)),
                         option->get_items_expected_max() == 0 ? ": it is a switch and takes none" : "");
    if (!dynamic_cast<const CLI::ArgumentMismatch*>(&e) || !said.starts_with(name + ":")) continue;
    if (option->count() > 1) return fmt::format("{} is given {} times: once is right", name, option->count());
    return fmt::format("{} needs a value: {}", name, option->get_type_name());
  }
  return std::string(said);
}

int run_program(int argc, char** argv) {
  CLI::App app("Trains deep plain and residual networks, and shows where the gradient went.", "gradflow");
  app.set_version_flag("--version",
                       fmt::format("gradflow {} ({})", gradflow::version(), gradflow::git_revision()));
  app.footer(
      "`gradflow COMMAND --help` explains a command, with examples of its own.\n\n"
      "Examples:\n"
      "  gradflow demo\n"
      "  gradflow measure --model mlp:depth=50,width=256,act=tanh --data fashion-mnist\n"
      "  gradflow plan --model resnet:depth=20 --batch 128\n");
  app.require_subcommand(0, 1);
  std::function<int()> run;
  gradflow::app::add_demo(app, run);
  gradflow::app::add_report(app, run);
  gradflow::app::add_train(app, run);
  gradflow::app::add_measure(app, run);
  gradflow::app::add_plan(app, run);
  gradflow::app::add_bench(app, run);
  gradflow::app::add_info(app, run);

  std::string name;
  try {
    app.parse(argc, argv);
  } catch (const CLI::Success& e) {  // --help, --version
    return app.exit(e);
  } catch (const CLI::ParseError& e) {
    // A misspelled option is often why a required one seems to be missing, so it is named first.
    const CLI::App& command = innermost(app, name);
    if (command.remaining(true).empty() && !app.remaining(true).empty()) {  // in front of a command, or behind --
      complain(unexpected(app), "gradflow");
    } else {
      complain(command.remaining(true).empty() ? misused(command, e) : unexpected(command), name);
    }
    return 2;
  }
  refuse_empty_values(app);
  if (!run) {  // no command, or one that only groups others
    fmt::print("{}", app.help());
    return 0;
  }
  return run();
}

}  // namespace

int main(int argc, char** argv) {
  gradflow::app::bound_spinning(argv);
  int code = 1;
  try {
    code = run_program(argc, argv);
  } catch (const UserError& e) {
    complain(e.what());
    return 2;
  } catch (const std::bad_alloc&) {
    complain("out of memory");
  } catch (const std::exception& e) {
    complain(fmt::format("internal error: {}", e.what()));
  }
  // Buffered output that meets a full disk is noticed only here.
  if (std::fflush(stdout) != 0 || std::ferror(stdout)) {
    complain(fmt::format("cannot write to standard output: {}", gradflow::system_message(errno)));
    return code == 0 ? 2 : code;
  }
  return code;
}
