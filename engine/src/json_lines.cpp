#include "gradflow/engine/json_lines.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cmath>
#include <iterator>
#include <nlohmann/json.hpp>

#include "gradflow/engine/file.h"
#include "gradflow/engine/text.h"
#include "gradflow/kernels/error.h"

namespace gradflow {
namespace {

using nlohmann::json;

std::string json_text(std::string_view text) {
  return json(text).dump(-1, ' ', false, json::error_handler_t::replace);
}

template <class T>
void append_number(std::string& out, T value) {
  if (std::isfinite(value)) {
    fmt::format_to(std::back_inserter(out), "{}", value);  // the shortest that reads back the same
  } else {
    out += "null";
  }
}

[[noreturn]] void fail(const std::filesystem::path& path, std::string_view reason) {
  throw UserError(fmt::format("cannot write the log {}: {}", quote(path.string(), 400), reason));
}

// The lines to keep of an earlier run's log.
std::string kept_lines(const std::filesystem::path& path, std::uint64_t last_step) {
  const std::string content = read_file(path);
  std::string kept;
  std::size_t number = 0, malformed = 0;  // counted from 1; 0: none
  for (std::size_t begin = 0; begin < content.size();) {
    const std::size_t end = content.find('\n', begin);
    if (end == std::string::npos) break;  // half-written: the run was killed within it
    const std::string_view line = std::string_view(content).substr(begin, end + 1 - begin);
    begin = end + 1;
    ++number;
    const json parsed = json::parse(line.begin(), line.end() - 1, nullptr, false);
    // A power loss can leave zeros in the last blocks; in the middle of a log they mean damage.
    if (!parsed.is_object()) {
      if (malformed == 0) malformed = number;
      continue;
    }
    if (malformed != 0)
      fail(path,
           fmt::format("its line {} is not a JSON object; to begin anew, move the file away", malformed));
    const auto step = parsed.find("step");
    const bool later = step != parsed.end() && step->is_number() &&
                       (step->is_number_unsigned() ? step->get<std::uint64_t>() > last_step
                                                   : step->get<double>() > static_cast<double>(last_step));
    if (!later) kept += line;
  }
  return kept;
}

}  // namespace

template <class T>
JsonLine& JsonLine::add_list(std::string_view key, std::span<const T> values) {
  std::string list = "[";
  for (std::size_t i = 0; i < values.size(); ++i) {
    if (i > 0) list += ',';
    append_number(list, values[i]);
  }
  return add_json(key, list + "]");
}

JsonLine& JsonLine::add_json(std::string_view key, std::string_view value) {
  if (text_.size() > 1) text_ += ',';
  text_ += json_text(key);
  text_ += ':';
  text_ += value;
  return *this;
}

JsonLine& JsonLine::add_signed(std::string_view key, std::int64_t value) {
  return add_json(key, fmt::format("{}", value));
}
JsonLine& JsonLine::add_unsigned(std::string_view key, std::uint64_t value) {
  return add_json(key, fmt::format("{}", value));
}
JsonLine& JsonLine::add(std::string_view key, bool value) { return add_json(key, value ? "true" : "false"); }
JsonLine& JsonLine::add(std::string_view key, float value) {
  std::string number;
  append_number(number, value);
  return add_json(key, number);
}
JsonLine& JsonLine::add(std::string_view key, double value) {
  std::string number;
  append_number(number, value);
  return add_json(key, number);
}
JsonLine& JsonLine::add(std::string_view key, std::string_view value) {
  return add_json(key, json_text(value));
}
JsonLine& JsonLine::add(std::string_view key, std::span<const float> values) { return add_list(key, values); }
JsonLine& JsonLine::add(std::string_view key, std::span<const double> values) {
  return add_list(key, values);
}

JsonLinesLog::JsonLinesLog(const std::filesystem::path& path, std::optional<std::uint64_t> resume_from_step)
    : path_(path) {
  std::error_code ignored;
  const bool resume = resume_from_step.has_value() && std::filesystem::exists(path, ignored);
  write_file_atomically(path, resume ? kept_lines(path, *resume_from_step) : std::string());
  descriptor_ = ::open(path.c_str(), O_WRONLY | O_APPEND | O_CLOEXEC);
  if (descriptor_ < 0) fail(path, system_message(errno));
}

JsonLinesLog::~JsonLinesLog() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

void JsonLinesLog::write(const JsonLine& line) {
  const std::string text = line.text() + "\n";
  struct stat before {};
  const bool regular = ::fstat(descriptor_, &before) == 0 && S_ISREG(before.st_mode);
  for (std::size_t done = 0; done < text.size();) {
    const ssize_t written = ::write(descriptor_, text.data() + done, text.size() - done);
    if (written < 0) {
      const int error = errno;
      if (error == EINTR) continue;
      // Take back the part that fitted, so that the log ends with a whole line.
      if (regular && done > 0 && ::ftruncate(descriptor_, before.st_size) != 0) errno = error;
      fail(path_, system_message(error));
    }
    done += static_cast<std::size_t>(written);
  }
}

}  // namespace gradflow
