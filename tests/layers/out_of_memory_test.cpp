// What is said when a step does not fit: the tensor without room, and the batch that would fit.
#include "gradflow/engine/out_of_memory.h"

#include <gtest/gtest.h>

#include "gradflow/engine/device.h"
#include "gradflow/engine/executor.h"
#include "gradflow/layers/models.h"

namespace gradflow {
namespace {

Model build_for_memory(std::int64_t batch) {
  return build_model(parse_model("resnet:depth=8,norm=none"), {.batch = batch, .features = 16 * 16 * 3, .classes = 10, .image = {16, 16, 3}});
}

struct PlannedNetwork {
  explicit PlannedNetwork(std::int64_t batch)
      : device(open_device("cpu", 1)), model(build_for_memory(batch)), parameters(*device, model.graph), optimizer(parameters, {.momentum = 0.9}) {
    const Plan plan = Executor(model.graph, parameters, &optimizer).plan();
    arena = plan.arena_bytes;
    persistent = plan.parameter_bytes + plan.state_bytes;
    for (const Tensor& moment : optimizer.first_moments()) persistent += moment.bytes();
  }

  std::unique_ptr<Backend> device;
  Model model;
  ParameterStore parameters;
  Optimizer optimizer;
  std::size_t arena = 0, persistent = 0;
};

TEST(OutOfMemory, NamesTheFirstTensorWithoutRoom) {
  PlannedNetwork n(12);
  const auto with_limit = [&](std::size_t limit) {
    Executor executor(n.model.graph, n.parameters, &n.optimizer, {.memory_limit = limit});
    return executor.plan().arena_bytes;
  };
  EXPECT_EQ(with_limit(n.persistent + n.arena), n.arena);  // just enough
  EXPECT_EQ(Executor::arena_bytes(n.model.graph, *n.device, true, {}), n.arena);
  try {
    with_limit(n.persistent + n.arena - 1);
    FAIL() << "one byte too few";
  } catch (const OutOfMemory& e) {
    EXPECT_EQ(e.needed(), n.arena);
    EXPECT_EQ(e.room(), n.arena - 1);
    const std::string text = e.what();
    EXPECT_EQ(text.find('\n'), std::string::npos);
    // The plan says which tensors reach to the arena's end; the message names the first in the order of the step.
    const Plan plan = Executor(n.model.graph, n.parameters, &n.optimizer).plan();
    const Buffer* first = nullptr;
    for (const Buffer& b : plan.buffers)
      if (b.offset + b.bytes == plan.arena_bytes && (!first || b.begin < first->begin)) first = &b;
    ASSERT_NE(first, nullptr);
    EXPECT_NE(text.find("the first without room is the " + std::string(name_of(first->role)) + " of '" + first->name + "'"), std::string::npos) << text;
    EXPECT_NE(text.find("out of memory: the tensors of a step need " + memory_text(n.arena)), std::string::npos) << text;
  }
}

// The copies of a bf16 network's weights take room as its parameters do.
TEST(OutOfMemory, CopiesOfTheWeightsCount) {
  const std::unique_ptr<Backend> device = open_device("cpu", 1);
  const Model m = build_model(parse_model("mlp:depth=3,width=64"),
                              {.batch = 4, .features = 32, .classes = 10, .dtype = DType::bf16});
  ParameterStore parameters(*device, m.graph);
  const Plan plan = Executor(m.graph, parameters).plan();
  ASSERT_GT(plan.parameter_copy_bytes, 0u);
  const std::size_t all = plan.parameter_bytes + plan.state_bytes + plan.parameter_copy_bytes + plan.arena_bytes;
  EXPECT_NO_THROW(Executor(m.graph, parameters, nullptr, {.memory_limit = all}));
  EXPECT_THROW(Executor(m.graph, parameters, nullptr, {.memory_limit = all - 1}), OutOfMemory);
}

TEST(OutOfMemory, TheAdviceIsTheLargestBatchThatFits) {
  PlannedNetwork n(40);
  const auto arena_at = [&](std::int64_t batch) {
    return Executor::arena_bytes(build_for_memory(batch).graph, *n.device, true, {});
  };
  const std::size_t room = n.arena / 3;
  std::int64_t fits = 40;
  while (arena_at(fits) > room) --fits;
  ASSERT_GT(fits, 1);
  const auto message = [&](std::size_t limit) {
    try {
      with_batch_advice(40, [&] { Executor(n.model.graph, n.parameters, &n.optimizer, {.memory_limit = limit}); }, arena_at);
    } catch (const OutOfMemory& e) {
      return std::string(e.what());
    }
    return std::string("it fits");
  };
  const std::string text = message(n.persistent + room);
  EXPECT_TRUE(text.ends_with("; a batch of " + std::to_string(fits) + " instead of 40 would fit")) << text;
  EXPECT_TRUE(message(n.persistent + 1000).ends_with("; not even a batch of 1 would fit"));
  EXPECT_TRUE(message(1).ends_with("; not even a batch of 1 would fit"));  // not even the parameters
  EXPECT_EQ(message(n.persistent + n.arena), "it fits");
}

TEST(OutOfMemory, SizesAreReadable) {
  EXPECT_EQ(memory_text(1000), "1000 bytes");
  EXPECT_EQ(memory_text(1536), "1.5 KiB");
  EXPECT_EQ(memory_text(std::size_t{3} << 30), "3.0 GiB");
}

}  // namespace
}  // namespace gradflow
