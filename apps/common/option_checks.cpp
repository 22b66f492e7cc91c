#include "apps/common/option_checks.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <charconv>
#include <string_view>

#include "gradflow/engine/spec_text.h"
#include "gradflow/engine/text.h"

namespace gradflow::app {
namespace {

// Digits alone, as a whole.
bool parse_count(std::string_view text, std::uint64_t& value) {
  const char* const end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, value);
  return error == std::errc() && stop == end;
}

}  // namespace

OptionCheck whole_number(std::uint64_t min, std::uint64_t max) {
  return [min, max](const std::string& text) {
    std::uint64_t value = 0;
    if (parse_count(text, value) && value >= min && value <= max) return std::string();
    return fmt::format("{} is not a whole number from {} to {}", quote(text), min, max);
  };
}

OptionCheck finite_number_from_0() {
  return [](const std::string& text) {
    double value = 0;
    return parse_double(text, value) && value >= 0 ? "" : quote(text) + " is not a finite number of 0 or more, such as 1e-3";
  };
}

OptionCheck one_of(std::vector<std::string> names) {
  return [names = std::move(names)](const std::string& text) {
    if (std::ranges::find(names, text) != names.end()) return std::string();
    const std::string_view nearest = nearest_name(text, names);
    return fmt::format("{} is none of {}{}", quote(text), joined(names),
                       nearest.empty() ? "" : fmt::format("; did you mean '{}'?", nearest));
  };
}

std::string size_to_bytes(std::string& text) {
  constexpr std::string_view kPrefixes = "kmgtpe";
  const std::size_t digits = std::min(text.find_first_not_of("0123456789"), text.size());
  std::string_view unit = std::string_view(text).substr(digits);
  unit.remove_prefix(std::min(unit.find_first_not_of(' '), unit.size()));
  std::string lower(unit);
  std::ranges::transform(lower, lower.begin(), [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  const std::size_t prefix = lower.empty() ? kPrefixes.npos : kPrefixes.find(lower[0]);
  const std::string_view rest = std::string_view(lower).substr(prefix == kPrefixes.npos ? 0 : 1);
  const bool known = rest.empty() || rest == "b" || (prefix != kPrefixes.npos && (rest == "i" || rest == "ib"));
  std::uint64_t value = 0;
  if (digits == 0 || !known)
    return quote(text) + " is not a size: a whole number of bytes, or of KiB, MiB, GiB or TiB, such as 6GiB";
  const std::size_t shift = prefix == kPrefixes.npos ? 0 : 10 * (prefix + 1);
  if (!parse_count(std::string_view(text).substr(0, digits), value) || value > std::numeric_limits<std::uint64_t>::max() >> shift)
    return quote(text) + " is more than any memory has: below 2^64 bytes";
  text = std::to_string(value << shift);
  return "";
}

}  // namespace gradflow::app
