#include "apps/common/spinning.h"

#include <unistd.h>

#include <climits>
#include <cstdlib>

namespace gradflow::app {
namespace {

constexpr const char* kSpinVariable = "GOMP_SPINCOUNT";
// 60 (AMD EPYC) to 90 microseconds (Intel Xeon, whose pause takes longer). Too few, and a thread that is a little
// ahead goes to sleep and has to be woken; too many, and it keeps the core from others. A step of the 50-layer
// network with two threads, medians of six runs on the Xeon, nothing else running: 21.2 ms with 1000, 19.1 with 2000,
// 18.6 with 3000, 17.7 with 5000; beside two busy processes 37 to 54 ms with 1000 as with 3000, 136 with 10000. On
// the EPYC, beside two busy processes, 0.1 s with 1000, 0.3 s with 5000, above 1 s with 30000, and 15 ms alone
// with any. 300000 is the library's default.
constexpr const char* kSpinCount = "2000";

}  // namespace

void bound_spinning(char** argv) {
  if (std::getenv(kSpinVariable) || std::getenv("OMP_WAIT_POLICY")) return;
  // The resolved path, not /proc/self/exe itself: tools show the last part of it as the process's name.
  char path[PATH_MAX];
  const ssize_t length = ::readlink("/proc/self/exe", path, sizeof path - 1);
  if (length <= 0) return;
  path[length] = '\0';
  if (::setenv(kSpinVariable, kSpinCount, 1) != 0) return;
  ::execv(path, argv);  // comes back only if it failed; then the default spinning stays
}

}  // namespace gradflow::app
