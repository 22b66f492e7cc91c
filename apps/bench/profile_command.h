// The command lines of NVIDIA's profilers for a benchmark that was just run.
#pragma once

#include <string>
#include <vector>

namespace gradflow::app {

// The arguments this process was started with, the program first.
std::vector<std::string> command_line();

struct ProfileTarget {
  std::vector<std::string>
      command;  // as run; --print-profile-command is taken out and --profile-window added
  std::vector<std::string> kernels;  // those to look at; empty: every kernel in the window
  bool step = false;                 // of a training step, whose launches have names
  bool on_host = false;              // nothing for these tools to see
};

// Comments and two or three commands: a timeline (nsys) and the kernels one by one (ncu).
std::string profile_commands(const ProfileTarget& target);

}  // namespace gradflow::app
