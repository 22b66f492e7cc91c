// Which gradflow this is: for reports, for `gradflow info`, and for messages about damaged files.
// All views are to constants of the program and stay valid.
#pragma once

#include <string_view>

namespace gradflow {

// "0.1.0", semantic versioning.
std::string_view version() noexcept;

// The git commit the library was built from, abbreviated, with "-dirty" behind it if tracked files
// differed from that commit. "unknown" when it was not built from a git checkout.
std::string_view git_revision() noexcept;

// What the build decided, in one line: compiler, build type, instruction set of the host kernels,
// sanitizers, and whether the CUDA module was built along.
// "GNU 12.2.0, RelWithDebInfo, -march=native, with CUDA module"
std::string_view build_summary() noexcept;

}  // namespace gradflow
