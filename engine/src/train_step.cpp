#include "gradflow/engine/train_step.h"

#include "gradflow/kernels/error.h"

namespace gradflow {

double train_step(Executor& network, Feed& feed, BatchOrder& order, std::uint64_t step) {
  Optimizer* const optimizer = network.optimizer();
  if (!optimizer) throw InternalError("train_step() of an executor without an optimizer");
  network.take_loss();
  feed.load(order.batch(step), network.input("x"), network.input("labels"));
  optimizer->set_step(static_cast<std::int64_t>(step) + 1);
  network.step();
  const kernels::LossResult loss = network.take_loss();
  return loss.loss_sum / static_cast<double>(loss.rows);
}

}  // namespace gradflow
