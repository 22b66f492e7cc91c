#include "apps/bench/kernels/yardstick.h"

#include <algorithm>
#include <cmath>
#include <string_view>

#include "apps/bench/kernels/measure.h"
#include "gradflow/kernels/error.h"

namespace gradflow::app {
namespace {

// As large as the largest usual tensor, and far above any cache, but not above a quarter of the memory.
std::size_t yardstick_elements(const kernels::DeviceInfo& info, bool host) {
  std::size_t n = std::size_t{1} << (host ? 24 : 26);
  while (n > 1024 && info.memory_bytes != 0 && 24 * n > info.memory_bytes / 4) n /= 2;
  return n;
}

struct Rates {
  double best, median;
};

class Meter {
 public:
  Meter(kernels::Backend& backend, OperandPool& pool, int samples, std::size_t n)
      : backend_(backend), pool_(pool), samples_(samples), n_(n), cases_(kernel_cases(DType::f32)) {}

  Rates rates(const char* name) {
    const KernelCase& c = find(name);
    return rates_of(name, [&](const Work& work, const auto& set) { return c.bind(backend_, work, set); });
  }
  // As rates("memory_copy_f32") and rates("memory_add_f32"), with the result where an operand was.
  Rates rates_in_place(const char* name) {
    const bool one_operand = std::string_view(name) == "memory_copy_f32";
    return rates_of(name, [&](const Work& work, const auto& set) -> LaunchOnce {
      const kernels::MoveMemory move{
          kernels::Traffic::add, work.operands[0].elements, static_cast<float*>(set[0]),
          static_cast<float*>(set[one_operand ? 0 : 1]), static_cast<float*>(set[0])};
      return [this, move] { backend_.move_memory(move); };
    });
  }
  Rates rates_of_copy_call() {
    return rates_of("memory_copy_f32", [this](const Work& work, const auto& set) -> LaunchOnce {
      return [this, bytes = work.operands[0].bytes(), from = set[0], to = set[2]] {
        backend_.copy(to, from, bytes);
      };
    });
  }
  Rates rates_of_zero_call() {
    return rates_of("fill_f32", [this](const Work& work, const auto& set) -> LaunchOnce {
      return [this, bytes = work.operands[0].bytes(), to = set[0]] { backend_.zero(to, bytes); };
    });
  }
  double seconds_of_one() {
    const KernelCase& c = find("memory_copy_f32");
    const Work work = c.work(1);
    const std::vector<LaunchOnce> one{c.bind(backend_, work, pool_.fill(work, 1)[0])};
    return measure(backend_, one, samples_).median;
  }

 private:
  kernels::Backend& backend_;
  OperandPool& pool_;
  int samples_;
  std::size_t n_;
  std::vector<KernelCase> cases_;

  const KernelCase& find(const char* name) const {
    const auto at = std::ranges::find(cases_, name, &KernelCase::name);
    if (at == cases_.end()) throw InternalError(std::string("no benchmark case is called ") + name);
    return *at;
  }
  template <class Bind>
  Rates rates_of(const char* name, const Bind& bind) {
    const Work work = find(name).work(n_);
    std::vector<LaunchOnce> launches;
    for (const auto& set : pool_.fill(work, 2)) launches.push_back(bind(work, set));
    const Measured m = measure(backend_, launches, samples_);
    return {work.bytes() / m.minimum, work.bytes() / m.median};
  }
};

}  // namespace

double TrafficCeilings::of(double read_bytes, double written_bytes) const noexcept {
  const struct {
    double read_share, rate;
  } measured[] = {{0, write}, {1.0 / 2, copy}, {2.0 / 3, add}, {1, read}};
  constexpr double kSame = 1e-2;  // a few more bytes for indices or statistics make no other mixture
  const double share = read_bytes / (read_bytes + written_bytes);
  double below = 0;
  for (const auto& m : measured) {
    if (std::fabs(share - m.read_share) < kSame) return m.rate;
    if (share < m.read_share) return std::max(below, m.rate);
    below = m.rate;
  }
  return below;
}

Yardstick measure_yardstick(kernels::Backend& backend, OperandPool& pool, int samples,
                            const Yardstick& before) {
  Yardstick y = before;
  y.elements = yardstick_elements(backend.info(), backend.is_host());
  Meter meter(backend, pool, samples, y.elements);
  const auto raise = [](double& to, double rate) { to = std::max(to, rate); };
  const Rates copy = meter.rates("memory_copy_f32"), call = meter.rates_of_copy_call(),
              add = meter.rates("memory_add_f32");
  raise(y.ceilings.copy, std::max({copy.best, call.best, meter.rates_in_place("memory_copy_f32").best}));
  raise(y.ceilings.add, std::max(add.best, meter.rates_in_place("memory_add_f32").best));
  raise(y.ceilings.write, std::max(meter.rates("fill_f32").best, meter.rates_of_zero_call().best));
  raise(y.ceilings.read, meter.rates("memory_read_f32").best);
  y.reference = backend.is_host() ? "triad" : "copy";
  raise(y.reference_rate, backend.is_host() ? add.median : std::max(copy.median, call.median));
  y.launch_seconds = meter.seconds_of_one();
  return y;
}

bool impossible(double bytes_per_second, double ceiling) noexcept {
  return !(bytes_per_second > 0 && bytes_per_second <= ceiling * (1 + kCeilingMargin));
}

bool launch_bound(double bytes, double ceiling, double seconds_of_one_element) noexcept {
  return bytes < ceiling * seconds_of_one_element;
}

}  // namespace gradflow::app
