#include "apps/bench/kernels/bench_kernels.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <charconv>
#include <cmath>
#include <map>
#include <optional>
#include <regex>

#include "gradflow/engine/device.h"
#include "gradflow/engine/text.h"
#include "gradflow/kernels/error.h"

namespace gradflow::app {
namespace {

constexpr std::size_t kLargestSize = std::size_t{1} << 40;
constexpr std::size_t kMostCopies = 1 << 15;
constexpr double kCacheTimes = 3;  // copies of the operands take so many times the cache's size

std::optional<std::size_t> whole_number(std::string_view text) {
  std::size_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

std::size_t parse_size(const std::string& text) {
  std::optional<std::size_t> n = whole_number(text);
  if (text.starts_with("2^")) {
    n = whole_number(std::string_view(text).substr(2));
    n = n && *n <= 40 ? std::optional(std::size_t{1} << *n) : std::nullopt;
  }
  if (!n || *n < 1 || *n > kLargestSize)
    throw UserError(fmt::format("{} is no size: elements as 2^26 or 1000000, from 1 to 2^40", quote(text)));
  return *n;
}

std::vector<std::size_t> sizes_of(const KernelBenchOptions& o, const kernels::Backend& backend) {
  if (!o.sizes.empty()) return parse_sizes(o.sizes);
  if (backend.is_host()) return {std::size_t{1} << 12, std::size_t{1} << 18, std::size_t{1} << 24};
  return {std::size_t{1} << 14, std::size_t{1} << 20, std::size_t{1} << 23, std::size_t{1} << 26};
}

DType dtype_named(const std::string& name) {
  for (const DType t : {DType::f32, DType::bf16, DType::f64})
    if (name == name_of(t)) return t;
  throw UserError(fmt::format("{} is no dtype of a kernel: f32, bf16 or f64", quote(name)));
}

// What lies between two launches on the same memory must push it out of the cache.
std::size_t copies_for(const Work& work, const kernels::DeviceInfo& device) {
  const auto set = static_cast<double>(std::max<std::size_t>(OperandPool::set_bytes(work), 1));
  const std::size_t cache = device.cache_bytes ? device.cache_bytes : std::size_t{64} << 20;
  const double wanted = std::ceil(kCacheTimes * static_cast<double>(cache) / set);
  return static_cast<std::size_t>(std::clamp<double>(wanted, 2, kMostCopies));
}

class Bench {
 public:
  Bench(const KernelBenchOptions& options, kernels::Backend& backend)
      : o_(options), backend_(backend), pool_(backend) {}

  // One window for the profiler, from the first launch that is timed to the last.
  void open_window() {
    if (o_.profile_window && !window_open_) backend_.profile_start();
    window_open_ = true;
  }
  void close_window() {
    if (o_.profile_window && window_open_) backend_.profile_stop();
    window_open_ = false;
  }

  Yardstick& yardstick() { return yardstick_; }
  void calibrate() {
    yardstick_ = measure_yardstick(backend_, pool_, std::max(5, o_.repeat / 2), yardstick_);
  }

  KernelRow run(const KernelCase& c, std::size_t size) {
    // A machine whose speed changes may have been slow while the ceilings were measured: they are measured
    // again before a result is refused.
    for (int attempt = 0;; ++attempt) {
      KernelRow row = time(c, size);
      judge(row, yardstick_);
      if (row.fault.empty() || attempt == 2) return row;
      calibrate();
    }
  }

 private:
  const KernelBenchOptions& o_;
  kernels::Backend& backend_;
  OperandPool pool_;
  Yardstick yardstick_;
  bool window_open_ = false;
  std::map<std::string, double> seconds_of_one_;

  std::vector<LaunchOnce> bind(const KernelCase& c, const Work& work, std::size_t copies) {
    std::vector<LaunchOnce> launches;
    for (const auto& set : pool_.fill(work, copies)) launches.push_back(c.bind(backend_, work, set));
    return launches;
  }

  double seconds_of_one(const KernelCase& c) {
    const auto [at, fresh] = seconds_of_one_.try_emplace(c.name, 0);
    if (fresh) at->second = measure(backend_, bind(c, c.work(1), 1), 5, 2e-4).median;
    return at->second;
  }

  KernelRow time(const KernelCase& c, std::size_t size) {
    const Work work = c.work(size);
    KernelRow row{.name = c.name,
                  .family = c.family,
                  .call = c.call,
                  .pass = c.pass,
                  .dtype = std::string(name_of(c.dtype)),
                  .kernels = c.kernels,
                  .size = size,
                  .rows = work.rows,
                  .columns = work.columns,
                  .read_bytes = work.read_bytes,
                  .written_bytes = work.written_bytes};
    row.seconds_of_one = seconds_of_one(c);
    const std::vector<LaunchOnce> launches = bind(c, work, copies_for(work, backend_.info()));
    measure(backend_, launches, 1);  // warms up, outside the window
    open_window();
    row.cold = measure(backend_, launches, o_.repeat);
    row.warm = measure(backend_, std::span(launches).first(1), o_.repeat);
    return row;
  }
};

}  // namespace

std::vector<std::size_t> parse_sizes(const std::vector<std::string>& texts) {
  std::vector<std::size_t> sizes;
  for (const std::string& text : texts) sizes.push_back(parse_size(text));
  return sizes;
}

std::string size_text(std::size_t size) {
  return std::has_single_bit(size) && size > 1 ? fmt::format("2^{}", std::countr_zero(size))
                                               : fmt::format("{}", size);
}

std::vector<KernelCase> choose_cases(const KernelBenchOptions& o, const kernels::Backend& backend) {
  std::vector<DType> dtypes;
  for (const std::string& name : o.dtypes) {
    dtypes.push_back(dtype_named(name));
    if (!backend.supports(dtypes.back()))
      throw UserError(fmt::format("{} has no kernels in {}", backend.info().name, name));
  }
  if (dtypes.empty()) {
    dtypes = {DType::f32};
    if (backend.supports(DType::bf16)) dtypes.push_back(DType::bf16);
  }
  std::regex only;
  try {
    only = std::regex(o.only);
  } catch (const std::regex_error& e) {
    throw UserError(fmt::format("{} is no regular expression: {}", quote(o.only), e.what()));
  }
  std::vector<KernelCase> chosen;
  std::vector<std::string> names;
  for (const DType dtype : dtypes)
    for (KernelCase& c : kernel_cases(dtype)) {
      names.push_back(c.name);
      if (std::regex_search(c.name, only)) chosen.push_back(std::move(c));
    }
  if (chosen.empty()) {
    const std::string_view near = nearest_name(o.only, names);
    throw UserError(fmt::format("no kernel's name matches {}{}; --list prints them", quote(o.only),
                                near.empty() ? "" : fmt::format(" (did you mean {}?)", near)));
  }
  return chosen;
}

void judge(KernelRow& row, const Yardstick& yardstick) {
  const double rate = row.cold.rate(row.bytes());
  row.ceiling = yardstick.ceilings.of(row.read_bytes, row.written_bytes);
  row.share = yardstick.reference_rate > 0 ? rate / yardstick.reference_rate : 0;
  row.launch_bound = launch_bound(row.bytes(), row.ceiling, row.seconds_of_one);
  row.fault.clear();
  if (impossible(rate, row.ceiling))
    row.fault = fmt::format("{:.1f} GB/s, and {:.1f} is the most that was measured for such traffic",
                            1e-9 * rate, 1e-9 * row.ceiling);
}

KernelBenchResult bench_kernels(const KernelBenchOptions& o, const KernelProgress& progress) {
  parse_sizes(o.sizes);  // mistakes before the device is opened
  const auto backend = open_device(o.device);
  const std::vector<KernelCase> cases = choose_cases(o, *backend);
  const std::vector<std::size_t> sizes = sizes_of(o, *backend);
  KernelBenchResult r{.device = backend->info()};
  const std::size_t total = cases.size() * sizes.size();
  if (progress) progress(0, total, "the memory's speed");
  const MachineLoad load;
  Bench bench(o, *backend);
  bench.calibrate();
  std::size_t done = 0;
  std::vector<KernelRow> measured;
  for (const std::size_t size : sizes)
    for (const KernelCase& c : cases) {
      if (progress) progress(done++, total, fmt::format("{} {}", c.name, size_text(size)));
      try {
        measured.push_back(bench.run(c, size));
      } catch (const UserError& e) {
        r.skipped.push_back({.name = c.name,
                             .family = c.family,
                             .call = c.call,
                             .pass = c.pass,
                             .dtype = std::string(name_of(c.dtype)),
                             .kernels = c.kernels,
                             .size = size,
                             .fault = e.what()});
      }
    }
  bench.close_window();
  r.yardstick = bench.yardstick();
  r.load = load.since_start();
  // The yardstick may have been raised on the way; every row is held against the same one.
  for (KernelRow& row : measured) {
    judge(row, r.yardstick);
    (row.fault.empty() ? r.rows : r.rejected).push_back(std::move(row));
  }
  return r;
}

}  // namespace gradflow::app
