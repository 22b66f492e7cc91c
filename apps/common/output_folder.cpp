#include "apps/common/output_folder.h"

#include <system_error>

#include "gradflow/engine/file.h"

namespace gradflow::app {

namespace fs = std::filesystem;

OutputFolder::OutputFolder(const fs::path& path) {
  std::vector<fs::path> missing;
  std::error_code error;
  for (fs::path p = path.lexically_normal(); !p.empty() && !fs::exists(p, error); p = p.parent_path()) {
    if (p.has_filename()) missing.push_back(p);
    if (p == p.parent_path()) break;
  }
  ensure_output_directory(path);
  created_ = std::move(missing);
}

OutputFolder::~OutputFolder() {
  std::error_code error;
  for (const fs::path& p : created_) fs::remove(p, error);  // refused where it is not empty
}

}  // namespace gradflow::app
