// Files that travel inside the program: everything in apps/report/assets, by file name, and the chart
// library as "chart.js".
#pragma once

#include <span>
#include <string_view>

#include "apps/report/embedded_file.h"

namespace gradflow::app {

// The bytes of one file; valid as long as the program runs, followed by an uncounted NUL.
// Throws InternalError, listing the names there are, if there is none of that name.
std::string_view asset(std::string_view name);

// All of them, in no particular order.
std::span<const EmbeddedFile> asset_files();

}  // namespace gradflow::app
