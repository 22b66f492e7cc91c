// Did somebody else use the processor while we were measuring?
#pragma once

#include <optional>
#include <string>

namespace gradflow::app {

// Reads the clocks at construction.
class MachineLoad {
 public:
  MachineLoad();

  struct Report {
    double wall_seconds = 0;
    double our_cores = 0;               // processor time of this process over wall time
    std::optional<double> other_cores;  // of everybody else; none where the system does not tell
    long preempted = 0;                 // how often a thread of ours was made to wait
  };
  Report since_start() const;

 private:
  double wall_, ours_;
  std::optional<double> all_;
  long preempted_;
};

// One sentence, empty if the measurement was undisturbed: somebody else used more than a twentieth of a core
// for each thread of ours, or the median lies far above the minimum.
std::string disturbance(const MachineLoad::Report& load, double minimum, double median, int threads);

}  // namespace gradflow::app
