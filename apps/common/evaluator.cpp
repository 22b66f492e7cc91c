#include "apps/common/evaluator.h"

#include <algorithm>
#include <cmath>

namespace gradflow::app {
namespace {

constexpr std::size_t kBatch = 500;  // enough rows for full speed

}  // namespace

Evaluator::Evaluator(const ModelSpec& spec, const Dataset& data, ParameterStore& parameters, Feed& test, std::size_t samples,
                     bool dead_units, std::size_t most_bytes, bool fuse)
    : test_(test) {
  const auto model_of = [&](std::size_t rows) {
    return build_model(spec, shape_of(data, static_cast<std::int64_t>(rows), parameters.dtype()));
  };
  const auto arena_of = [&](std::size_t rows) {
    return Executor::arena_bytes(model_of(rows).graph, parameters.backend(), false,
                                  {.training = false, .fuse = fuse});
  };
  const std::size_t count = std::min(samples, test.count());
  std::size_t batch = std::min(kBatch, count);
  while (most_bytes != kAll && batch > 1 && arena_of(batch) > most_bytes) batch /= 2;
  const std::size_t whole = batch ? count - count % batch : 0;
  const auto add = [&](std::size_t rows, std::size_t first, std::size_t last) {
    if (first == last) return;
    const Model model = model_of(rows);
    ExecutorOptions options{.training = false, .fuse = fuse};
    for (const WeightLayer& layer : model.layers)
      if (dead_units && layer.activation)
        options.probes.push_back({.target = ProbeTarget::value, .id = *layer.activation, .stats = false, .alive = true});
    parts_.push_back({rows, first, last, std::make_unique<Executor>(model.graph, parameters, nullptr, options)});
  };
  add(batch, 0, whole);
  add(count - whole, whole, count);
}

Evaluation Evaluator::run() {
  Evaluation result;
  std::vector<std::vector<std::uint8_t>> alive;
  kernels::LossResult total;
  for (Part& part : parts_) {
    Executor& e = *part.executor;
    e.reset_alive();
    for (std::size_t i = part.first; i < part.last; i += part.batch) {
      test_.load_range(i, e.input("x"), e.input("labels"));
      e.forward();
    }
    const kernels::LossResult loss = e.take_loss();
    total.loss_sum += loss.loss_sum;
    total.rows += loss.rows;
    total.correct += loss.correct;
    alive.resize(e.options().probes.size());
    for (std::size_t p = 0; p < alive.size(); ++p) {
      const auto flags = e.read_alive(static_cast<int>(p));
      alive[p].resize(flags.size());
      for (std::size_t u = 0; u < flags.size(); ++u) alive[p][u] |= flags[u];
    }
  }
  const double rows = static_cast<double>(std::max<std::uint64_t>(total.rows, 1));
  result.loss = total.loss_sum / rows;
  result.accuracy = static_cast<double>(total.correct) / rows;
  for (const auto& flags : alive)
    result.dead.push_back(static_cast<double>(std::ranges::count(flags, 0)) / static_cast<double>(std::max<std::size_t>(flags.size(), 1)));
  if (!alive.empty()) result.dead.push_back(std::nan(""));
  return result;
}

}  // namespace gradflow::app
