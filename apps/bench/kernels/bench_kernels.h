// `gradflow bench kernels`: every kernel at several sizes, beside what the device can do at best.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "apps/bench/kernels/measure.h"
#include "apps/bench/kernels/yardstick.h"
#include "apps/bench/machine_load.h"

namespace gradflow::app {

struct KernelBenchOptions {
  std::string device = "auto";
  std::string only;                 // regular expression, found anywhere in a case's name; empty: all
  std::vector<std::string> sizes;   // "2^26" or "1000000"; empty: those that suit the device
  std::vector<std::string> dtypes;  // "f32", "bf16", "f64"; empty: f32, and bf16 where there is
  int repeat = 20;                  // samples
  bool profile_window = false;      // tell a profiler to collect the timed launches alone
};

// One case at one size.
struct KernelRow {
  std::string name, family, call, pass, dtype;
  std::vector<std::string> kernels;   // that it launches on CUDA
  std::size_t size = 0;               // asked for
  std::size_t rows = 0, columns = 0;  // of a matrix, else 0
  double read_bytes = 0, written_bytes = 0;
  Measured cold, warm;        // memory that no cache holds; the same memory again and again
  double seconds_of_one = 0;  // the same launch with one element: what starting it takes
  double share = 0;           // of the yardstick's reference rate, cold
  double ceiling = 0;         // bytes per second for this mixture of reading and writing
  bool launch_bound = false;
  std::string fault;  // why the figures are not believed (then they are not recorded), or were not taken

  double bytes() const noexcept { return read_bytes + written_bytes; }
};

struct KernelBenchResult {
  kernels::DeviceInfo device;
  Yardstick yardstick;
  std::vector<KernelRow> rows;      // recorded
  std::vector<KernelRow> rejected;  // above a ceiling; their figures are left out of every output
  std::vector<KernelRow> skipped;   // no kernel for the dtype, or not enough memory
  MachineLoad::Report load;
};

// The cases that the options choose, by name. Throws UserError for a bad expression, size or dtype, and where
// nothing matches.
std::vector<std::size_t> parse_sizes(const std::vector<std::string>& texts);
std::vector<KernelCase> choose_cases(const KernelBenchOptions& options, const kernels::Backend& backend);

// progress(done, total, name) before each case and size.
using KernelProgress = std::function<void(std::size_t, std::size_t, const std::string&)>;
KernelBenchResult bench_kernels(const KernelBenchOptions& options, const KernelProgress& progress = {});

// Fills in what follows from the times: share, ceiling, launch-bound, and the fault of a rate that cannot be.
void judge(KernelRow& row, const Yardstick& yardstick);

std::string size_text(std::size_t size);  // "2^26", "1000000"

std::string kernels_text(const KernelBenchResult& r, std::size_t width);
// Object "gradflow-bench-kernels/1", see docs/BENCHMARKS.md.
std::string kernels_json(const KernelBenchOptions& o, const KernelBenchResult& r);
std::string kernels_csv(const KernelBenchResult& r);
std::string kernels_svg(const KernelBenchResult& r);

}  // namespace gradflow::app
