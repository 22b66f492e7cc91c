#include "apps/bench/profile_command.h"

#include <fmt/format.h>

#include <algorithm>

#include "apps/common/shell_words.h"
#include "gradflow/engine/file.h"
#include "gradflow/engine/text.h"

namespace gradflow::app {
namespace {

using Words = std::vector<std::string>;

bool is_option(const std::string& word, std::string_view name) {
  return word == name || word.starts_with(std::string(name) + "=");
}

Words in_window(const Words& command) {
  Words words;
  bool window = false;
  for (const std::string& word : command) {
    if (word == "--print-profile-command") continue;
    window = window || is_option(word, "--profile-window");
    words.push_back(word);
  }
  if (!window) words.push_back("--profile-window");
  return words;
}

// Launch by launch: a recorded step is one launch to the profiler, and its parts lose their names.
Words without_recording(const Words& command) {
  Words words;
  for (std::size_t i = 0; i < command.size(); ++i) {
    if (command[i] == "--graph") {
      ++i;
      continue;
    }
    if (!is_option(command[i], "--graph")) words.push_back(command[i]);
  }
  words.push_back("--graph=off");
  return words;
}

std::string line(Words profiler, const Words& command) {
  profiler.insert(profiler.end(), command.begin(), command.end());
  return shell_line(profiler) + "\n";
}

const Words kTimeline = {"nsys",
                         "profile",
                         "--trace=cuda,nvtx",
                         "--sample=none",
                         "--cpuctxsw=none",
                         "--capture-range=cudaProfilerApi",
                         "--capture-range-end=stop",
                         "--force-overwrite=true"};

Words timeline(const std::string& output, bool nodes) {
  Words words = kTimeline;
  if (nodes) words.push_back("--cuda-graph-trace=node");
  words.push_back("--output=" + output);
  return words;
}

}  // namespace

std::vector<std::string> command_line() {
  const std::string text = read_file("/proc/self/cmdline");  // words that end in NUL
  Words words;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t end = std::min(text.find('\0', at), text.size());
    words.push_back(text.substr(at, end - at));
    at = end + 1;
  }
  return words;
}

std::string profile_commands(const ProfileTarget& t) {
  const Words command = in_window(t.command);
  std::string out;
  if (t.on_host) out += "# This ran on the host, which these tools do not see: choose --device cuda.\n";
  if (t.step) {
    out += "# The step as it runs, one recording with its kernels:\n";
    out += line(timeline("gradflow-step", true), command);
    out += "# The step launch by launch, each under its layer's name:\n";
    out += line(timeline("gradflow-step-named", false), without_recording(command));
    out += "nsys stats --report=cuda_gpu_kern_sum,nvtx_gpu_proj_sum gradflow-step-named.nsys-rep\n";
  } else {
    out += line(timeline("gradflow-kernels", false), command);
  }
  Words ncu = {"ncu", "--profile-from-start=off", "--clock-control=none", "--set=full", "--force-overwrite"};
  if (!t.kernels.empty()) {
    ncu.push_back("--kernel-name");
    ncu.push_back("regex:^(" + joined(t.kernels, "|") + ")$");
    ncu.push_back(fmt::format("--launch-count={}", 3 * t.kernels.size()));
  }
  ncu.push_back(fmt::format("--export=gradflow-{}", t.step ? "step" : "kernels"));
  out += "# Inside the kernels; a launch is run again for every group of counters:\n";
  return out + line(ncu, t.step ? without_recording(command) : command);
}

}  // namespace gradflow::app
