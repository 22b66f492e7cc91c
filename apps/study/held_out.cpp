#include "apps/study/held_out.h"

#include <algorithm>
#include <cmath>

namespace gradflow::app {

HeldOut::HeldOut(const ModelSpec& spec, const Dataset& data, ParameterStore& store, std::size_t samples)
    : samples_(std::min(samples, data.test.count())) {
  constexpr std::size_t kBatch = 500;
  const auto add = [&](std::size_t batch, std::size_t first, std::size_t last) {
    if (first == last) return;
    Part part{.batch = batch, .first = first, .last = last};
    part.model = build_model(spec, {.batch = static_cast<std::int64_t>(batch), .features = static_cast<std::int64_t>(data.shape.features()),
                                    .classes = data.classes, .dtype = store.dtype()});
    ExecutorOptions options{.training = false};
    for (const WeightLayer& layer : part.model.layers)
      if (layer.activation) options.probes.push_back({.target = ProbeTarget::value, .id = *layer.activation, .stats = false, .alive = true});
    part.executor = std::make_unique<Executor>(part.model.graph, store, nullptr, options);
    parts_.push_back(std::move(part));
  };
  const std::size_t batch = std::min(kBatch, samples_), whole = batch ? samples_ / batch * batch : 0;
  add(batch, 0, whole);
  add(samples_ - whole, whole, samples_);
}

HeldOutResult HeldOut::run(Feed& test) {
  HeldOutResult result;
  std::vector<std::vector<std::uint8_t>> alive;
  kernels::LossResult total;
  for (Part& part : parts_) {
    Executor& e = *part.executor;
    e.reset_alive();
    for (std::size_t i = part.first; i < part.last; i += part.batch) {
      test.load_range(i, e.input("x"), e.input("labels"));
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
  result.dead.push_back(std::nan(""));
  return result;
}

}  // namespace gradflow::app
