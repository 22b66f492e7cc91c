#include "gradflow/engine/spec_text.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>

#include "gradflow/engine/text.h"
#include "gradflow/kernels/error.h"

namespace gradflow {
namespace {

template <class T>
bool parse_whole(std::string_view text, T& value) {
  T parsed{};
  const char* end = text.data() + text.size();
  const auto [stopped, error] = std::from_chars(text.data(), end, parsed);
  if (error != std::errc{} || stopped != end) return false;
  value = parsed;
  return true;
}

// "from 1 to 10", "at least 1", ...; empty if nothing is bounded.
template <class T>
std::string range_text(T min, T max) {
  const bool above = min != std::numeric_limits<T>::lowest(), below = max != std::numeric_limits<T>::max();
  if (above && below) return fmt::format(" from {} to {}", min, max);
  if (above) return fmt::format(" of at least {}", min);
  if (below) return fmt::format(" of at most {}", max);
  return "";
}

}  // namespace

bool parse_int(std::string_view text, std::int64_t& value) { return parse_whole(text, value); }

bool parse_double(std::string_view text, double& value) {
  double parsed = 0;
  if (!parse_whole(text, parsed) || !std::isfinite(parsed)) return false;
  value = parsed;
  return true;
}

SplitName split_name(std::string_view spec) {
  const std::size_t colon = spec.find(':');
  if (colon == std::string_view::npos) return {spec, {}, false};
  return {spec.substr(0, colon), spec.substr(colon + 1), true};
}

void throw_unknown_name(std::string_view what, std::string_view spec, std::string_view name,
                        const std::vector<std::string>& valid) {
  const std::string_view nearest = nearest_name(name, valid);
  throw UserError(fmt::format("{} {}: {}{} (names: {})", what, quote(spec),
                              name.empty() ? "the name is missing" : "unknown name " + quote(name),
                              nearest.empty() ? "" : fmt::format("; did you mean '{}'?", nearest),
                              joined(valid)));
}

SpecReader::SpecReader(std::string_view spec, std::string_view what) : text_(spec), what_(what) {
  const SplitName split = split_name(text_);
  parsed_.name = split.name;
  if (!split.has_rest) return;
  if (split.rest.empty()) malformed_ = "nothing follows the ':'";
  // A trailing comma makes a last, empty part.
  for (std::size_t begin = 0; malformed_.empty() && begin <= split.rest.size();) {
    const std::size_t end = std::min(split.rest.find(',', begin), split.rest.size());
    const std::string_view part = split.rest.substr(begin, end - begin);
    begin = end + 1;
    const std::size_t equals = part.find('=');
    const std::string_view key = part.substr(0, equals);
    const bool repeated = std::any_of(parsed_.values.begin(), parsed_.values.end(),
                                      [&](const auto& value) { return value.first == key; });
    if (part.empty()) {
      malformed_ = "there is an empty part between commas";
    } else if (equals == std::string_view::npos) {
      malformed_ = fmt::format("{} has no '=': expected key=value", quote(part));
    } else if (key.empty()) {
      malformed_ = fmt::format("{} has no key before the '='", quote(part));
    } else if (equals + 1 == part.size()) {
      malformed_ = fmt::format("{} has no value", quote(part));
    } else if (repeated) {
      malformed_ = fmt::format("{} is given twice", quote(key));
    } else {
      parsed_.values.emplace_back(key, part.substr(equals + 1));
    }
  }
}

const std::string* SpecReader::find(std::string_view key) {
  if (std::find(valid_.begin(), valid_.end(), key) == valid_.end()) valid_.emplace_back(key);
  for (const auto& [name, value] : parsed_.values)
    if (name == key) return &value;
  return nullptr;
}

bool SpecReader::has(std::string_view key) { return find(key) != nullptr; }

std::int64_t SpecReader::get_int(std::string_view key, std::int64_t default_value, std::int64_t min,
                                 std::int64_t max) {
  const std::string* text = find(key);
  if (text == nullptr) return default_value;
  std::int64_t value = 0;
  if (parse_int(*text, value) && value >= min && value <= max) return value;
  reject(key, "a whole number" + range_text(min, max));
  return default_value;
}

double SpecReader::get_double(std::string_view key, double default_value, double min, double max) {
  const std::string* text = find(key);
  if (text == nullptr) return default_value;
  double value = 0;
  if (parse_double(*text, value) && value >= min && value <= max) return value;
  reject(key, "a finite number" + range_text(min, max));
  return default_value;
}

bool SpecReader::get_switch(std::string_view key, bool default_value) {
  return get_choice(key, {"on", "off"}, default_value ? "on" : "off") == "on";
}

std::string SpecReader::get_choice(std::string_view key, std::initializer_list<std::string_view> choices,
                                   std::string_view default_value) {
  return get_choice(key, std::span(choices.begin(), choices.size()), default_value);
}

std::string SpecReader::get_choice(std::string_view key, std::span<const std::string_view> choices,
                                   std::string_view default_value) {
  const std::string* text = find(key);
  if (text == nullptr) return std::string(default_value);
  if (std::find(choices.begin(), choices.end(), *text) != choices.end()) return *text;
  const std::vector<std::string> names(choices.begin(), choices.end());
  const std::string_view nearest = nearest_name(*text, names);
  reject(key, fmt::format("one of {}{}", joined(names),
                          nearest.empty() ? "" : fmt::format("; did you mean '{}'?", nearest)));
  return std::string(default_value);
}

std::vector<std::int64_t> SpecReader::get_int_list(std::string_view key,
                                                   std::vector<std::int64_t> default_value, std::int64_t min,
                                                   std::int64_t max) {
  const std::string* text = find(key);
  if (text == nullptr) return default_value;
  std::vector<std::int64_t> values;
  for (std::size_t begin = 0; begin <= text->size();) {
    const std::size_t end = std::min(text->find('/', begin), text->size());
    std::int64_t value = 0;
    if (!parse_int(std::string_view(*text).substr(begin, end - begin), value) || value < min || value > max) {
      reject(key, fmt::format("whole numbers{} separated by '/'", range_text(min, max)));
      return default_value;
    }
    values.push_back(value);
    begin = end + 1;
  }
  return values;
}

std::string SpecReader::get_text(std::string_view key, std::string_view default_value) {
  const std::string* text = find(key);
  return text == nullptr ? std::string(default_value) : *text;
}

void SpecReader::reject(std::string_view key, std::string_view expected) {
  const std::string* text = find(key);
  reject(fmt::format("{} is not {}", text == nullptr ? quote(key) : quote(fmt::format("{}={}", key, *text)),
                     expected));
}

void SpecReader::reject(std::string_view reason) {
  if (wrong_value_.empty()) wrong_value_ = reason;
}

void SpecReader::fail(std::string_view reason) const {
  throw UserError(fmt::format(
      "{} {}: {} ({})", what_, quote(text_), reason,
      valid_.empty() ? fmt::format("'{}' takes no keys", parsed_.name) : "keys: " + joined(valid_)));
}

void SpecReader::finish() const {
  if (!malformed_.empty()) fail(malformed_);
  for (const auto& [key, value] : parsed_.values) {
    if (std::find(valid_.begin(), valid_.end(), key) != valid_.end()) continue;
    const std::string_view nearest = nearest_name(key, valid_);
    fail(fmt::format("unknown key {}{}", quote(key),
                     nearest.empty() ? "" : fmt::format("; did you mean '{}'?", nearest)));
  }
  if (!wrong_value_.empty()) fail(wrong_value_);
}

}  // namespace gradflow
