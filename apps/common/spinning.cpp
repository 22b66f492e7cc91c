#include "apps/common/spinning.h"

#include <unistd.h>

#include <climits>
#include <cstdlib>

namespace gradflow::app {
namespace {

constexpr const char* kSpinVariable = "GOMP_SPINCOUNT";
// About 30 microseconds: longer than the serial gaps inside a step. With two other busy processes on two
// cores a step of 15 ms took 0.1 s with 1000, 0.3 s with 5000 and above 1 s with 30000; 300000 is the
// library's default.
constexpr const char* kSpinCount = "1000";

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
