// Short texts that say what to build: "mlp:depth=50,width=256,act=tanh", "synthetic:classes=4".
//
//   SpecReader reader(text, "model");
//   const auto depth = reader.get_int("depth", 50, 1, 100000);
//   const auto skip = reader.get_switch("skip", false);
//   reader.finish();      // throws if anything above, or anything left over, was wrong
//
// Strict: unknown, repeated, empty or malformed parts are errors. Every error is one line that quotes
// the whole text and the offending part and lists the valid keys; an unknown name gets the nearest
// valid one. Spaces are not skipped.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <limits>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace gradflow {

struct SplitName {
  std::string_view name;  // up to the first ':'
  std::string_view rest;  // behind it, unparsed: "mnist:DIR" may hold '=', ',' and ':'
  bool has_rest = false;  // was there a ':'?
};
SplitName split_name(std::string_view spec);

struct SpecText {
  std::string name;
  std::vector<std::pair<std::string, std::string>> values;  // in the order they were written
};

// Throws UserError: model 'mpl:depth=3': unknown name 'mpl'; did you mean 'mlp'? (names: mlp, resnet)
[[noreturn]] void throw_unknown_name(std::string_view what, std::string_view spec, std::string_view name,
                                     const std::vector<std::string>& valid);

// Reads the values of one text. Each getter names a key that is thereby valid, and returns the default
// if the key is absent, and also if its value is wrong: that error is kept and thrown by finish(), when
// all valid keys are known. So call finish() right after the last getter, before using the values.
class SpecReader {
 public:
  // `what` names the kind of text in messages: "model", "data", "schedule". A text that does not consist
  // of a name and key=value pairs is reported by finish() too.
  SpecReader(std::string_view spec, std::string_view what);

  const std::string& name() const { return parsed_.name; }
  const std::string& text() const { return text_; }
  const SpecText& parsed() const { return parsed_; }

  // Was the key written? Also makes it valid.
  bool has(std::string_view key);

  // A whole decimal number in [min, max].
  std::int64_t get_int(std::string_view key, std::int64_t default_value,
                       std::int64_t min = std::numeric_limits<std::int64_t>::min(),
                       std::int64_t max = std::numeric_limits<std::int64_t>::max());
  // A finite decimal number in [min, max], "0.5" or "1e-3".
  double get_double(std::string_view key, double default_value,
                    double min = std::numeric_limits<double>::lowest(),
                    double max = std::numeric_limits<double>::max());
  // "on" or "off".
  bool get_switch(std::string_view key, bool default_value);
  // One of `choices`.
  std::string get_choice(std::string_view key, std::span<const std::string_view> choices,
                         std::string_view default_value);
  std::string get_choice(std::string_view key, std::initializer_list<std::string_view> choices,
                         std::string_view default_value);
  // Whole numbers separated by '/', each in [min, max]: "32000/48000".
  std::vector<std::int64_t> get_int_list(std::string_view key, std::vector<std::int64_t> default_value,
                                         std::int64_t min, std::int64_t max);
  // Any text (never empty if written); the caller checks it and reports by reject().
  std::string get_text(std::string_view key, std::string_view default_value);

  // Reports, by finish(), that the value of `key` is wrong: "<key>=<value> is not <expected>".
  void reject(std::string_view key, std::string_view expected);
  // Reports, by finish(), what is wrong with the text as a whole.
  void reject(std::string_view reason);

  // Throws the first error, if there was any: malformed text first, then unknown keys, then values.
  void finish() const;

 private:
  const std::string* find(std::string_view key);  // null if absent
  [[noreturn]] void fail(std::string_view reason) const;

  std::string text_;
  std::string what_;
  SpecText parsed_;
  std::vector<std::string> valid_;
  std::string malformed_;    // the first error in the form of the text
  std::string wrong_value_;  // the first error in a value
};

// Whole-string conversions, for values that come from elsewhere; false if the text is anything else
// (trailing characters, overflow, NaN, infinity).
bool parse_int(std::string_view text, std::int64_t& value);
bool parse_double(std::string_view text, double& value);

}  // namespace gradflow
