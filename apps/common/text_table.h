// Tables for terminals and pipes.
#pragma once

#include <cstdio>
#include <string>
#include <vector>

namespace gradflow::app {

struct TableColumn {
  std::string title;
  bool left = false;      // aligned left; numbers are aligned right
  std::size_t least = 0;  // > 0: may be cut down to this many characters where the terminal is narrow
};

class TextTable {
 public:
  explicit TextTable(std::vector<TableColumn> columns) : columns_(std::move(columns)) {}

  void add(std::vector<std::string> cells);  // missing cells are empty
  bool empty() const noexcept { return rows_.empty(); }

  // width: characters to fit into; 0: as wide as it needs. Two spaces between columns.
  std::string text(std::size_t width = 0) const;

 private:
  std::vector<TableColumn> columns_;
  std::vector<std::vector<std::string>> rows_;
};

// Columns of the terminal that `file` is; 0 for a pipe or a file.
std::size_t terminal_width(std::FILE* file);

// "12.9 MB": powers of 1000, three digits.
std::string bytes_text(double bytes);
// "1.23 G", "512", "0"
std::string count_text(double count);

}  // namespace gradflow::app
