#include "apps/common/text_table.h"

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>

namespace gradflow::app {
namespace {

std::size_t length_of(const std::string& utf8) {  // characters, not bytes
  return static_cast<std::size_t>(std::ranges::count_if(utf8, [](char c) { return (c & 0xC0) != 0x80; }));
}

std::string fitted(const std::string& text, std::size_t width, bool left) {
  const std::size_t length = length_of(text);
  if (length > width) {  // cut behind `width - 1` characters
    std::size_t byte = 0;
    for (std::size_t seen = 0; byte < text.size(); ++byte)
      if ((text[byte] & 0xC0) != 0x80 && seen++ == width - 1) break;
    return text.substr(0, byte) + "…";
  }
  const std::string space(width - length, ' ');
  return left ? text + space : space + text;
}

}  // namespace

void TextTable::add(std::vector<std::string> cells) {
  cells.resize(columns_.size());
  rows_.push_back(std::move(cells));
}

std::string TextTable::text(std::size_t width) const {
  std::vector<std::size_t> widths;
  std::size_t total = 2 * (columns_.size() - 1);
  for (std::size_t c = 0; c < columns_.size(); ++c) {
    std::size_t widest = length_of(columns_[c].title);
    for (const auto& row : rows_) widest = std::max(widest, length_of(row[c]));
    widths.push_back(widest);
    total += widest;
  }
  for (std::size_t c = columns_.size(); width && total > width && c-- > 0;) {
    if (columns_[c].least == 0 || widths[c] <= columns_[c].least) continue;
    const std::size_t cut = std::min(total - width, widths[c] - columns_[c].least);
    widths[c] -= cut;
    total -= cut;
  }

  std::string out;
  const auto line = [&](const auto& cell) {
    std::string joined;
    for (std::size_t c = 0; c < columns_.size(); ++c)
      joined += fitted(cell(c), widths[c], columns_[c].left) + (c + 1 < columns_.size() ? "  " : "");
    joined.erase(joined.find_last_not_of(' ') + 1);
    out += joined + "\n";
  };
  line([&](std::size_t c) { return columns_[c].title; });
  for (const auto& row : rows_) line([&](std::size_t c) { return row[c]; });
  return out;
}

std::size_t terminal_width(std::FILE* file) {
  winsize size{};
  if (!::isatty(::fileno(file)) || ::ioctl(::fileno(file), TIOCGWINSZ, &size) != 0) return 0;
  return size.ws_col;
}

std::string count_text(double count) {
  static constexpr const char* kUnits[] = {"", " k", " M", " G", " T", " P"};
  std::size_t unit = 0;
  while (std::fabs(count) >= 999.5 && unit + 1 < std::size(kUnits)) count /= 1000, ++unit;
  const int decimals = unit == 0 || count >= 99.95 ? 0 : count >= 9.995 ? 1 : 2;
  return fmt::format("{:.{}f}{}", count, decimals, kUnits[unit]);
}

std::string bytes_text(double bytes) {
  std::string text = count_text(bytes);
  return text + (text.find(' ') == std::string::npos ? " B" : "B");
}

}  // namespace gradflow::app
