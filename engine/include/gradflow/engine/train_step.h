// A step of training on a data set: what the loop of a program of one's own consists of.
#pragma once

#include <cstdint>

#include "gradflow/engine/dataset.h"
#include "gradflow/engine/executor.h"
#include "gradflow/engine/feed.h"

namespace gradflow {

// Puts the batch that `order` gives step `step` (counted from 0) into the inputs "x" and "labels" of `network`, makes
// the step at the optimizer's base rate, and returns the batch's mean loss, for which it waits for the device. What
// take_loss() had summed before is lost. `feed` and `order` are of one split, `order` of the network's batch; pixels
// are not varied. InternalError if the executor has no optimizer.
double train_step(Executor& network, Feed& feed, BatchOrder& order, std::uint64_t step);

}  // namespace gradflow
