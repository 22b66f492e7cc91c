#include "gradflow/engine/text.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

namespace gradflow {

std::string quote(std::string_view text, std::size_t limit) {
  std::string result = "'";
  for (char c : text.substr(0, limit)) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == '\n') {
      result += "\\n";
    } else if (c == '\t') {
      result += "\\t";
    } else if (byte < 0x20 || byte == 0x7f) {
      result += fmt::format("\\x{:02x}", byte);
    } else {
      result += c;
    }
  }
  result += "'";
  if (text.size() > limit) result += fmt::format("... ({} bytes)", text.size());
  return result;
}

std::size_t edit_distance(std::string_view a, std::string_view b) {
  constexpr std::size_t kMax = 64;
  if (a.size() > kMax || b.size() > kMax) return std::max(a.size(), b.size());
  // Three rows of the dynamic program: two back (for swaps), one back, and the current one.
  std::array<std::size_t, kMax + 1> two_back{}, back{}, row{};
  for (std::size_t j = 0; j <= b.size(); ++j) back[j] = j;
  for (std::size_t i = 1; i <= a.size(); ++i) {
    row[0] = i;
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const std::size_t replace = back[j - 1] + (a[i - 1] == b[j - 1] ? 0 : 1);
      row[j] = std::min({back[j] + 1, row[j - 1] + 1, replace});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
        row[j] = std::min(row[j], two_back[j - 2] + 1);
    }
    two_back = back;
    back = row;
  }
  return back[b.size()];
}

std::string_view nearest_name(std::string_view name, std::span<const std::string> valid) {
  std::string_view best;
  // Half the letters may differ: more than that is another word, not a slip.
  std::size_t best_distance = std::max<std::size_t>(2, name.size() / 2) + 1;
  for (const std::string& candidate : valid) {
    std::size_t distance = edit_distance(name, candidate);
    if (distance >= std::max(name.size(), candidate.size())) continue;  // not one letter in common
    const bool cut_short = name.size() >= 2 && candidate.starts_with(name);
    const bool written_out = candidate.size() >= 2 && name.starts_with(candidate);
    if (cut_short || written_out) distance = std::min<std::size_t>(distance, 2);
    if (distance < best_distance) {
      best_distance = distance;
      best = candidate;
    }
  }
  return best;
}

std::string joined(std::span<const std::string> names, std::string_view separator) {
  return fmt::format("{}", fmt::join(names, separator));
}

}  // namespace gradflow
