#include "apps/bench/kernels/measure.h"

#include <algorithm>
#include <cmath>

#include "apps/bench/median.h"

namespace gradflow::app {
namespace {

constexpr int kMostLaunches = 2000;  // of a sample

class Turns {
 public:
  explicit Turns(std::span<const LaunchOnce> launches) : launches_(launches) {}
  void run(int times) {
    for (int i = 0; i < times; ++i) {
      launches_[next_]();
      next_ = next_ + 1 == launches_.size() ? 0 : next_ + 1;
    }
  }

 private:
  std::span<const LaunchOnce> launches_;
  std::size_t next_ = 0;
};

}  // namespace

Measured measure(kernels::Backend& backend, std::span<const LaunchOnce> launches, int samples,
                 double sample_seconds) {
  Turns turns(launches);
  const auto timer = backend.make_timer();
  const auto sample = [&](int times) {
    if (!backend.is_host()) turns.run(1);
    timer->start();
    turns.run(times);
    timer->stop();
    return timer->seconds() / times;
  };
  // The first launches load code and fault pages in; every copy is touched, up to a limit.
  turns.run(static_cast<int>(std::min<std::size_t>(launches.size(), 64)));
  double seconds = sample(1);
  int times = 1;
  for (int i = 0; i < 4; ++i) {  // a longer run tells more exactly how long one launch takes
    const double wanted = std::ceil(sample_seconds / std::max(seconds, 1e-9));
    times = static_cast<int>(std::clamp<double>(wanted, 1, std::min<double>(kMostLaunches, 16.0 * times)));
    seconds = sample(times);
  }
  Measured m{.samples = samples, .launches = times};
  std::vector<double> all;
  for (int i = 0; i < samples; ++i) all.push_back(sample(times));
  m.median = median_of(all);
  m.minimum = std::ranges::min(all);
  m.maximum = std::ranges::max(all);
  return m;
}

}  // namespace gradflow::app
