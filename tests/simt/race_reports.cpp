// Not instrumented: the sanitizer calls this while it reports.
#include "simt/race_reports.h"

#include <sanitizer/common_interface_defs.h>

#include <algorithm>
#include <array>

extern "C" {
// ThreadSanitizer's own, in no header of it.
int __tsan_get_report_mop(void* report, unsigned long index, int* thread, void** address, int* size,
                          int* write, int* atomic, void** trace, unsigned long trace_size);

// A test fails because it looks at the reports, not by the program's exit status: some tests provoke races.
const char* __tsan_default_options() { return "exitcode=0:atexit_sleep_ms=0:suppress_equal_addresses=0"; }
}

namespace simt {
namespace {

struct Report {
  std::array<void*, 2> places;
};

constexpr std::size_t kKept = 16;  // the rest is counted
Report reports[kKept];
std::size_t reported = 0;

std::string place_of(void* pc) {
  if (pc == nullptr) return "unknown";
  char text[1000] = "";
  __sanitizer_symbolize_pc(pc, "%S", text, sizeof text);
  const std::string path = text;
  return path.substr(path.rfind('/') + 1);
}

}  // namespace

std::size_t races_reported() { return reported; }

std::vector<Race> take_races() {
  std::vector<Race> races;
  for (std::size_t i = 0; i < std::min(reported, kKept); ++i) {
    races.push_back({place_of(reports[i].places[0]), place_of(reports[i].places[1])});
  }
  reported = 0;
  return races;
}

}  // namespace simt

// Allocates nothing: the sanitizer holds its locks.
extern "C" void __tsan_on_report(void* report) {
  if (simt::reported < simt::kKept) {
    for (std::size_t i = 0; i < 2; ++i) {
      int thread = 0, size = 0, write = 0, atomic = 0;
      void *address = nullptr, *trace[4] = {};
      __tsan_get_report_mop(report, i, &thread, &address, &size, &write, &atomic, trace, 4);
      simt::reports[simt::reported].places[i] = trace[0];
    }
  }
  ++simt::reported;
}
