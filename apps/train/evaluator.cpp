#include "apps/train/evaluator.h"

#include <algorithm>

namespace gradflow::app {
namespace {

// Enough rows for full speed, few enough that activations need less memory than training's.
constexpr std::size_t kBatch = 500;

}  // namespace

Evaluator::Evaluator(const ModelSpec& spec, const Dataset& data, Backend& backend, ParameterStore& parameters)
    : feed_(backend, data, data.test) {
  const std::size_t count = feed_.count(), batch = std::min(kBatch, count);
  const std::size_t whole = batch ? count - count % batch : 0;
  const auto add = [&](std::size_t rows, std::size_t first, std::size_t last) {
    if (first == last) return;
    const ModelShape shape{.batch = static_cast<std::int64_t>(rows),
                           .features = static_cast<std::int64_t>(data.shape.features()),
                           .classes = data.classes,
                           .dtype = parameters.dtype()};
    Part part{.batch = rows, .first = first, .last = last, .executor = nullptr};
    part.executor = std::make_unique<Executor>(build_model(spec, shape).graph, parameters, nullptr,
                                               ExecutorOptions{.training = false});
    parts_.push_back(std::move(part));
  };
  add(batch, 0, whole);
  add(count - whole, whole, count);
}

Evaluation Evaluator::run() {
  kernels::LossResult total;
  for (const Part& part : parts_) {
    Executor& e = *part.executor;
    for (std::size_t first = part.first; first < part.last; first += part.batch) {
      feed_.load_range(first, e.input("x"), e.input("labels"));
      e.forward();
    }
    const kernels::LossResult result = e.take_loss();
    total.loss_sum += result.loss_sum;
    total.rows += result.rows;
    total.correct += result.correct;
  }
  const double rows = static_cast<double>(std::max<std::uint64_t>(total.rows, 1));
  return {total.loss_sum / rows, static_cast<double>(total.correct) / rows};
}

}  // namespace gradflow::app
