#include "apps/study/study.h"

#include <fmt/chrono.h>
#include <fmt/format.h>

#include <algorithm>
#include <chrono>

#include "apps/common/precision.h"
#include "apps/study/pair.h"
#include "apps/study/run_networks.h"
#include "apps/study/verdict.h"
#include "gradflow/engine/device.h"
#include "gradflow/engine/interrupt.h"
#include "gradflow/engine/version.h"
#include "gradflow/kernels/error.h"

namespace gradflow::app {
namespace {

StudyResult describe_study(const StudyOptions& o, const Dataset& data, const kernels::Backend& backend) {
  StudyResult r;
  r.title = fmt::format("Where did the gradient go? {}-layer plain and residual networks", o.depth);
  r.gradflow_version = version();
  r.git_revision = git_revision();
  r.build = build_summary();
  r.date_utc = fmt::format("{:%Y-%m-%dT%H:%M:%SZ}", fmt::gmtime(std::chrono::system_clock::to_time_t(std::chrono::system_clock::now())));
  const kernels::DeviceInfo& device = backend.info();
  r.device = device.name;
  r.device_model = device.model;
  r.libraries = device.libraries;
  if (const int n = networks_at_a_time(backend); backend.is_host()) r.libraries += fmt::format("; {} network{} at a time, one thread each", n, n == 1 ? "" : "s");
  // What ran, then what the device's arithmetic is like.
  r.precision = fmt::format("networks in {}; the device offers {}", storage_text(DType::f32), device.precision);
  r.data = fmt::format("{}: {} + {} images {}x{}x{}, {} classes, pixels shifted and scaled to mean 0 and mean square 1", data.name,
                       data.train.count(), data.test.count(), data.shape.height, data.shape.width, data.shape.channels, data.classes);
  r.optimizer = fmt::format("{} lr={} momentum={} weight_decay={}", name_of(o.optimizer), o.learning_rate, o.momentum, o.weight_decay);
  r.schedule = "constant";
  r.seed = o.seed;
  r.init_seeds = o.init_seeds;
  r.batch = o.batch;
  r.steps = o.steps;
  r.classes = data.classes;
  r.held_out = static_cast<int>(std::min(o.held_out, data.test.count()));
  r.held_out_last = static_cast<int>(std::min(o.final_held_out, data.test.count()));
  return r;
}

}  // namespace

StudyResult run_study(const StudyOptions& options, PairSize pair, const StudyProgress& progress) {
  const auto start = std::chrono::steady_clock::now();
  const Dataset data = load_dataset(options.data);
  const auto backend = open_device(options.device);
  StudyResult result = describe_study(options, data, *backend);
  // Shares of the time, as measured on two cores.
  const double first_part = pair == PairSize::off ? 1 : 0.6;
  result.networks = run_networks(options, factorial(options), *backend, data,
                                 [&](double done, std::string_view what) { progress(first_part * done, what); });
  if (pair != PairSize::off && !interrupted())
    result.pair = run_pair(options, pair, *backend, data,
                           [&](double done, std::string_view what) { progress(first_part + (1 - first_part) * done, what); });
  result.interrupted = interrupted();

  const double decay_step = options.optimizer == kernels::OptimizerKind::sgd
                                ? options.learning_rate * options.weight_decay / (1 - options.momentum)
                                : kMissing;
  const NetworkResult* yardstick = nullptr;
  for (NetworkResult& n : result.networks)
    if (n.yardstick) yardstick = &n;
  for (NetworkResult& n : result.networks) {
    n.at_init = judge_at_init(n, result.thresholds);
    const bool finished = n.diverged_at || (!n.curve.empty() && n.curve.back().step == options.steps);
    if (finished) {
      n.trained = judge_trained(n, n.yardstick ? nullptr : yardstick, result.thresholds, result.classes, decay_step);
    } else {
      n.trained.headline = "not measured";
      n.trained.evidence = "training was interrupted before its end";
    }
  }
  result.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return result;
}

}  // namespace gradflow::app
