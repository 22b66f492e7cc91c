#include "apps/bench/machine_load.h"

#include <fmt/format.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <fstream>

namespace gradflow::app {
namespace {

double wall_now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

double seconds(const timeval& t) {
  return static_cast<double>(t.tv_sec) + 1e-6 * static_cast<double>(t.tv_usec);
}

rusage usage() {
  rusage u{};
  ::getrusage(RUSAGE_SELF, &u);
  return u;
}

// Processor seconds of everybody since the system started: user, nice, system, irq, softirq, steal.
std::optional<double> all_processors() {
  std::ifstream in("/proc/stat");
  std::string cpu;
  double field[8] = {};
  in >> cpu;
  for (double& f : field) in >> f;
  if (!in || cpu != "cpu") return std::nullopt;
  return (field[0] + field[1] + field[2] + field[5] + field[6] + field[7]) /
         static_cast<double>(::sysconf(_SC_CLK_TCK));
}

}  // namespace

MachineLoad::MachineLoad() : wall_(wall_now()), all_(all_processors()) {
  const rusage u = usage();
  ours_ = seconds(u.ru_utime) + seconds(u.ru_stime);
  preempted_ = u.ru_nivcsw;
}

MachineLoad::Report MachineLoad::since_start() const {
  const rusage u = usage();
  const double wall = wall_now() - wall_, ours = seconds(u.ru_utime) + seconds(u.ru_stime) - ours_;
  Report r{.wall_seconds = wall,
           .our_cores = wall > 0 ? ours / wall : 0,
           .other_cores = {},
           .preempted = u.ru_nivcsw - preempted_};
  // The system counts in hundredths of a second, so short measurements tell nothing.
  if (const auto all = all_processors(); all && all_ && wall > 0.2)
    r.other_cores = std::max(0.0, (*all - *all_ - ours) / wall);
  return r;
}

std::string disturbance(const MachineLoad::Report& load, double minimum, double median, int threads) {
  if (load.other_cores && *load.other_cores > 0.05 * threads)
    return fmt::format(
        "other processes used {:.2f} cores meanwhile, ours {:.2f} with {} threads: the minimum is nearer the "
        "truth",
        *load.other_cores, load.our_cores, threads);
  if (median > 1.2 * minimum)
    return fmt::format(
        "the median is {:.0f} % above the minimum: the machine was not quiet, or its clock changed",
        100 * (median / minimum - 1));
  return {};
}

}  // namespace gradflow::app
