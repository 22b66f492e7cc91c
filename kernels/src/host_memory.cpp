#include "gradflow/kernels/host_memory.h"

#include <algorithm>
#include <charconv>
#include <fstream>
#include <limits>
#include <optional>
#include <string_view>

namespace gradflow::kernels {
namespace {

constexpr std::size_t kUnlimited = std::numeric_limits<std::size_t>::max();

std::optional<std::size_t> number_at(std::string_view text) {
  const std::size_t from = text.find_first_not_of(" \t");
  if (from == std::string_view::npos) return std::nullopt;
  std::size_t value = 0;
  const auto [end, error] = std::from_chars(text.data() + from, text.data() + text.size(), value);
  return error == std::errc() ? std::optional(value) : std::nullopt;
}

// The number behind `key` and a space or colon, at the start of a line.
std::optional<std::size_t> number_of(const std::string& file, std::string_view key) {
  std::ifstream in(file);
  for (std::string line; std::getline(in, line);)
    if (line.size() > key.size() && line.compare(0, key.size(), key) == 0 &&
        (line[key.size()] == ' ' || line[key.size()] == ':'))
      return number_at(std::string_view(line).substr(key.size() + 1));
  return std::nullopt;
}

// The number that the whole file is; nothing for "max".
std::optional<std::size_t> number_in(const std::string& file) {
  std::ifstream in(file);
  std::string line;
  return std::getline(in, line) ? number_at(line) : std::nullopt;
}

struct GroupFiles {  // of a control group's directory; version 1 and 2 name them differently
  const char *limit, *used, *inactive_cache, *active_cache;
};
constexpr GroupFiles kVersion1{"memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file", "total_active_file"};
constexpr GroupFiles kVersion2{"memory.max", "memory.current", "inactive_file", "active_file"};

std::size_t left_in(const std::string& group, const GroupFiles& files) {
  const auto limit = number_in(group + "/" + files.limit), used = number_in(group + "/" + files.used);
  if (!limit || !used) return kUnlimited;
  const std::string statistics = group + "/memory.stat";
  const std::size_t cache = number_of(statistics, files.inactive_cache).value_or(0) +
                            number_of(statistics, files.active_cache).value_or(0);
  const std::size_t needed = *used - std::min(*used, cache);
  return *limit - std::min(*limit, needed);
}

// The group `path` below `mount` and all that it is part of. Inside a container the path may be the one that the
// machine sees: then only the directories above it exist.
std::size_t left_in_all(const std::string& mount, std::string path, const GroupFiles& files) {
  std::size_t left = left_in(mount, files);
  while (path.size() > 1) {
    left = std::min(left, left_in(mount + path, files));
    path.resize(path.rfind('/') == std::string::npos ? 0 : path.rfind('/'));
  }
  return left;
}

std::size_t left_in_control_groups(const std::string& root) {
  std::size_t left = kUnlimited;
  std::ifstream in(root + "/proc/self/cgroup");
  for (std::string line; std::getline(in, line);) {  // "4:memory:/path" or, version 2, "0::/path"
    const std::size_t first = line.find(':'), second = line.find(':', first + 1);
    if (first == std::string::npos || second == std::string::npos) continue;
    const std::string controllers = "," + line.substr(first + 1, second - first - 1) + ",";
    const std::string path = line.substr(second + 1);
    if (controllers.find(",memory,") != std::string::npos)
      left = std::min(left, left_in_all(root + "/sys/fs/cgroup/memory", path, kVersion1));
    else if (controllers == ",,")
      left = std::min(left, left_in_all(root + "/sys/fs/cgroup", path, kVersion2));
  }
  return left;
}

}  // namespace

std::size_t available_host_memory(const std::string& root) {
  const std::string machine = root + "/proc/meminfo";
  const std::size_t kib = number_of(machine, "MemAvailable").value_or(0) + number_of(machine, "SwapFree").value_or(0);
  return std::min(kib == 0 ? kUnlimited : kib * 1024, left_in_control_groups(root));
}

}  // namespace gradflow::kernels
