// A folder for results, tried before the work and taken away again if the work fails.
#pragma once

#include <filesystem>
#include <vector>

namespace gradflow::app {

class OutputFolder {
 public:
  // Creates the folder with its parents and tries that it can be written; UserError as
  // ensure_output_directory().
  explicit OutputFolder(const std::filesystem::path& path);
  // Removes those folders that the constructor created and that are still empty.
  ~OutputFolder();
  OutputFolder(const OutputFolder&) = delete;
  OutputFolder& operator=(const OutputFolder&) = delete;

 private:
  std::vector<std::filesystem::path> created_;  // inner folders first
};

}  // namespace gradflow::app
