#include "apps/report/assets.h"

#include <string>

#include "gradflow/kernels/error.h"

namespace gradflow::app {

std::string_view asset(std::string_view name) {
  std::string known;
  for (const EmbeddedFile& file : asset_files()) {
    if (file.name == name) return file.bytes;
    known += known.empty() ? "" : ", ";
    known += file.name;
  }
  throw InternalError("no embedded file named '" + std::string(name) + "'; there are: " + known);
}

}  // namespace gradflow::app
