#include "gradflow/engine/version.h"

#include "gradflow_revision.inc"  // #define GRADFLOW_REVISION, written at build time

namespace gradflow {

std::string_view version() noexcept { return GRADFLOW_VERSION; }

std::string_view git_revision() noexcept { return GRADFLOW_REVISION; }

std::string_view build_summary() noexcept { return GRADFLOW_BUILD_SUMMARY; }

}  // namespace gradflow
