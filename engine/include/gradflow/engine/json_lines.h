// A log of one JSON object a line, that survives being killed at any time.
//
//   JsonLinesLog log(out / "log.jsonl");
//   log.write(JsonLine().add("step", step).add("loss", loss));
//
// Each line goes to the system in one write, so a reader beside the run sees whole lines, and `kill -9`
// loses none that was written. JSON has no NaN and no infinity: such numbers are written as null.
#pragma once

#include <concepts>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace gradflow {

// One object, keys in the order they are added. Numbers are written with as many digits as it takes to
// read the same number back (f32 and f64 each their own). Text that is not UTF-8 has the offending bytes
// replaced. Adding a key twice is the caller's mistake and not checked.
class JsonLine {
 public:
  template <std::signed_integral T>
  JsonLine& add(std::string_view key, T value) {
    return add_signed(key, value);
  }
  template <std::unsigned_integral T>
  JsonLine& add(std::string_view key, T value) {
    return add_unsigned(key, value);
  }
  JsonLine& add(std::string_view key, bool value);
  JsonLine& add(std::string_view key, float value);
  JsonLine& add(std::string_view key, double value);
  JsonLine& add(std::string_view key, std::string_view value);
  JsonLine& add(std::string_view key, const char* value) { return add(key, std::string_view(value)); }
  JsonLine& add(std::string_view key, std::span<const float> values);
  JsonLine& add(std::string_view key, std::span<const double> values);
  // Any other JSON value, already written; it must be valid and hold no line break.
  JsonLine& add_json(std::string_view key, std::string_view json);

  std::string text() const { return text_ + "}"; }  // without a line break

 private:
  JsonLine& add_signed(std::string_view key, std::int64_t value);
  JsonLine& add_unsigned(std::string_view key, std::uint64_t value);
  template <class T>
  JsonLine& add_list(std::string_view key, std::span<const T> values);

  std::string text_ = "{";
};

class JsonLinesLog {
 public:
  // Without `resume_from_step`: begins an empty log; what was there is replaced.
  // With it: keeps the lines of an earlier run, without those whose "step" is a number above the given
  // one (that run went on after its last checkpoint) and without a half-written last line. Lines with no
  // "step" stay. UserError if the file cannot be opened, or if a line before the last well-formed one is
  // not a JSON object (then it is no log of ours, or damaged: nothing is changed).
  explicit JsonLinesLog(const std::filesystem::path& path,
                        std::optional<std::uint64_t> resume_from_step = std::nullopt);
  ~JsonLinesLog();
  JsonLinesLog(const JsonLinesLog&) = delete;
  JsonLinesLog& operator=(const JsonLinesLog&) = delete;

  // UserError if the disk is full or the like; the log then ends with the line before.
  void write(const JsonLine& line);

  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
  int descriptor_ = -1;
};

}  // namespace gradflow
