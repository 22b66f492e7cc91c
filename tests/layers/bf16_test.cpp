// bf16 networks: what is stored in which type, copies of the weights that keep step with them, gradients and
// training beside f32.
#include "gradflow/kernels/bf16.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <optional>

#include "engine/temp_dir.h"
#include "gradflow/engine/checkpoint.h"
#include "gradflow/engine/device.h"
#include "gradflow/engine/executor.h"
#include "gradflow/engine/feed.h"
#include "gradflow/engine/train_step.h"
#include "gradflow/layers/models.h"
#include "layers/harness.h"

namespace gradflow {
namespace {

struct TrainingRun {
  std::unique_ptr<Backend> device = open_device("cpu", 2);
  Dataset data;
  Model model;
  std::optional<ParameterStore> store;
  std::optional<Optimizer> optimizer;
  std::optional<Executor> executor;
  std::optional<Feed> feed;

  TrainingRun(const std::string& text, DType dtype, const std::string& dataset, std::int64_t batch,
              bool retain = false)
      : data(load_dataset(dataset)), model(build_model(parse_model(text), shape_of(data, batch, dtype))) {
    store.emplace(*device, model.graph);
    store->initialize(model.spec.initializer(), 7);
    optimizer.emplace(*store, OptimizerConfig{.learning_rate = 0.02, .momentum = 0.9, .weight_decay = 1e-4});
    executor.emplace(model.graph, *store, retain ? nullptr : &*optimizer, ExecutorOptions{.retain = retain});
    feed.emplace(*device, data, data.train);
  }

  void load(std::int64_t step) {
    const Tensor x = executor->input("x");
    BatchOrder order(data.train.count(), static_cast<std::size_t>(x.shape()[0]), 3);
    feed->load(order.batch(static_cast<std::uint64_t>(step)), x, executor->input("labels"));
  }
  // Steps first + 1 .. last; the mean loss of the last one.
  double train(std::int64_t first, std::int64_t last) {
    BatchOrder order(data.train.count(), static_cast<std::size_t>(executor->input("x").shape()[0]), 3);
    double loss = 0;
    for (std::int64_t step = first; step < last; ++step)
      loss = train_step(*executor, *feed, order, static_cast<std::uint64_t>(step));
    return loss;
  }
  void expect_copies_in_step(const char* when) const {
    std::size_t copies = 0;
    for (std::size_t p = 0; p < store->parameters().size(); ++p) {
      const Tensor &w = store->parameters()[p], &copy = store->operands()[p];
      if (copy.data == w.data) continue;
      ++copies;
      ASSERT_EQ(copy.dtype(), DType::bf16);
      for (std::size_t i = 0; i < w.elements(); ++i)
        ASSERT_EQ(copy.as<Bf16>()[i], to_bf16(w.as<float>()[i]))
            << when << ", parameter " << p << " element " << i;
    }
    EXPECT_GE(copies, 4u) << when;
  }
  std::vector<std::byte> bytes() const {
    std::vector<std::byte> all;
    for (const std::span<const Tensor> list :
         {store->parameters(), store->operands(), store->states(), optimizer->first_moments()})
      for (const Tensor& t : list) {
        const auto* at = static_cast<const std::byte*>(t.data);
        all.insert(all.end(), at, at + t.bytes());
      }
    return all;
  }
};

constexpr const char* kSmallImages = "synthetic:n=256,test=64,height=8,width=8,channels=3,classes=4";

TEST(Bf16Network, StoresActivationsInBf16AndParametersInF32) {
  const TrainingRun run("resnet:depth=8", DType::bf16, kSmallImages, 16),
      wide("resnet:depth=8", DType::f32, kSmallImages, 16);
  const Plan &plan = run.executor->plan(), &f32 = wide.executor->plan();
  std::size_t narrow = 0;
  for (std::size_t i = 0; i < plan.buffers.size(); ++i) {
    const Buffer& b = plan.buffers[i];
    switch (b.role) {
      case BufferRole::value:
      case BufferRole::gradient:
        EXPECT_EQ(b.dtype, b.name == "labels" ? DType::i32 : DType::bf16) << b.name;
        narrow += b.dtype == DType::bf16 ? b.bytes : 0;
        break;
      case BufferRole::parameter_gradient: EXPECT_EQ(b.dtype, DType::f32) << b.name; break;
      case BufferRole::workspace: EXPECT_EQ(b.dtype, DType::u8); break;
      case BufferRole::saved:  // batch statistics, or the loss's gradient
        EXPECT_EQ(b.dtype, b.name == "loss" ? DType::bf16 : DType::f32) << b.name;
        break;
      default: break;
    }
  }
  std::size_t wide_bytes = 0;
  for (const Buffer& b : f32.buffers)
    if ((b.role == BufferRole::value || b.role == BufferRole::gradient) && b.dtype == DType::f32)
      wide_bytes += b.bytes;
  EXPECT_EQ(2 * narrow, wide_bytes);
  EXPECT_EQ(plan.parameter_bytes, f32.parameter_bytes);
  std::size_t multiplied = 0;
  for (const ParameterSpec& p : run.model.graph.parameters())
    multiplied += p.multiplied ? p.shape.elements() : 0;
  EXPECT_EQ(plan.parameter_copy_bytes, 2 * multiplied);
  EXPECT_EQ(f32.parameter_copy_bytes, 0u);
  for (const Tensor& t : run.store->states()) EXPECT_EQ(t.dtype(), DType::f32);
  for (const Tensor& t : run.optimizer->first_moments()) EXPECT_EQ(t.dtype(), DType::f32);
  for (std::size_t p = 0; p < run.store->parameters().size(); ++p) {  // the same bits as an f32 network's
    const Tensor &a = run.store->parameters()[p], &b = wide.store->parameters()[p];
    ASSERT_EQ(a.spec, b.spec);
    EXPECT_EQ(std::memcmp(a.data, b.data, a.bytes()), 0);
  }
}

TEST(Bf16Network, CopiesKeepStepAndAResumedRunHasTheBitsOfAnUnbrokenOne) {
  const test::TempDir dir;
  const auto file = dir / "run.safetensors";
  const std::string text = "resnet:depth=8,shortcut=B";
  TrainingRun whole(text, DType::bf16, kSmallImages, 32);
  whole.expect_copies_in_step("initialized");
  whole.train(0, 3);
  whole.expect_copies_in_step("updated");
  save_checkpoint(file, *whole.store, &*whole.optimizer, {.model = text, .step = 3, .batch = 32});
  whole.train(3, 6);

  const Checkpoint saved(file);
  EXPECT_EQ(saved.dtype(), "bf16");
  TrainingRun resumed(text, DType::bf16, kSmallImages, 32);
  saved.restore(*resumed.store, &*resumed.optimizer);
  resumed.expect_copies_in_step("restored");
  resumed.train(3, 6);
  EXPECT_EQ(resumed.bytes(), whole.bytes());
  TrainingRun wide(text, DType::f32, kSmallImages, 32);  // its tensors are f32: an f32 network can read them
  saved.restore(*wide.store, &*wide.optimizer);
}

// What bf16 does to gradients of weights. One rounding changes a number by a relative error of standard
// deviation 2^-8 / sqrt(12) times the mean of 1/mantissa, 0.0008 to 0.0017; a layer of these networks makes
// three forward and three backward, so with L layers whose errors are independent a gradient is off by about
// 0.0013 sqrt(6 L) of its norm: 0.01 for L = 8, 0.014 for L = 20. What layers make of errors changes that by
// small factors: tanh (0.007 seen for L = 8) damps, batch norm, which takes away a mean and what goes along
// with x, does not (0.064 for L = 20). 6 times as much is allowed. ReLU adds units whose sign changes: with
// pre-activations off by r of their deviation a share r / sqrt(2 pi) of them, whose gradients are then all
// wrong; relative to the norm that is sqrt(2 r / sqrt(2 pi)) = 0.09 for r = 0.01, in every layer: up to 0.09
// sqrt(L) = 0.4 in the first of 20 layers (0.09 for 8 and 0.25 for 20 seen). None of these errors has a
// direction: along the true gradient, a sum over many numbers, the result is right to a few per cent. Scales
// and shifts of batch norm, 16 numbers that are sums of a batch's, are not compared: theirs is sums that
// cancel.
struct Against {
  double loss, error,
      slope;  // relative difference of the losses; most of ||g - f|| / ||f|| and of |<g,f>/<f,f> - 1|
};

Against beside_f32(const std::string& text, const std::string& dataset, std::int64_t batch) {
  std::vector<std::vector<double>> gradients[2];
  double losses[2] = {};
  for (const DType dtype : {DType::f32, DType::bf16}) {
    TrainingRun run(text, dtype, dataset, batch, true);
    // Of the same weights: f32's are rounded too.
    for (const Tensor& w : run.store->parameters())
      for (std::size_t i = 0; i < w.elements(); ++i) w.as<float>()[i] = to_float(to_bf16(w.as<float>()[i]));
    run.store->refresh_copies();
    run.load(0);
    run.executor->forward();
    run.executor->backward();
    const bool bf16 = dtype == DType::bf16;
    losses[bf16] = run.executor->take_loss().loss_sum / static_cast<double>(batch);
    for (std::size_t p = 0; p < run.store->parameters().size(); ++p) {
      if (!run.model.graph.parameters()[p].multiplied) continue;
      const Tensor g = run.executor->parameter_gradient(static_cast<ParameterId>(p));
      EXPECT_EQ(g.dtype(), DType::f32);
      std::vector<double> numbers;
      for (std::size_t i = 0; i < g.elements(); ++i) numbers.push_back(test::number_at(g, i));
      gradients[bf16].push_back(std::move(numbers));
    }
  }
  Against worst{std::fabs(losses[1] / losses[0] - 1), 0, 0};
  for (std::size_t p = 0; p < gradients[0].size(); ++p) {
    double difference = 0, norm = 0, dot = 0;
    for (std::size_t i = 0; i < gradients[0][p].size(); ++i) {
      const double f = gradients[0][p][i], g = gradients[1][p][i];
      difference += (g - f) * (g - f), norm += f * f, dot += g * f;
    }
    EXPECT_GT(norm, 0);
    worst.error = std::max(worst.error, std::sqrt(difference / norm));
    worst.slope = std::max(worst.slope, std::fabs(dot / norm - 1));
  }
  fmt::print("  {}: loss {:.2g}, gradients off by {:.3f} at most, along themselves by {:.3f}\n", text,
             worst.loss, worst.error, worst.slope);
  return worst;
}

TEST(Bf16Network, GradientsOfSmoothNetworksAreThoseOfF32WithinTheirRoundings) {
  const Against mlp = beside_f32("mlp:depth=8,width=64,act=tanh,init=xavier",
                                 "synthetic:n=256,test=64,features=32,classes=4", 64);
  EXPECT_TRUE(mlp.loss <= 0.005);
  EXPECT_TRUE(mlp.error <= 6 * 0.0013 * std::sqrt(6.0 * 8));
  EXPECT_TRUE(mlp.slope <= 0.01);
  const Against resnet = beside_f32("resnet:depth=20,act=tanh", kSmallImages, 32);
  EXPECT_TRUE(resnet.loss <= 0.005);
  EXPECT_TRUE(resnet.error <= 6 * 0.0013 * std::sqrt(6.0 * 20));
  EXPECT_TRUE(resnet.slope <= 0.02);
}

TEST(Bf16Network, GradientsOfReluNetworksHaveTheirDirection) {
  const Against mlp = beside_f32("mlp:depth=8,width=64", "synthetic:n=256,test=64,features=32,classes=4", 64);
  EXPECT_TRUE(mlp.loss <= 0.005);
  EXPECT_TRUE(mlp.error <= 0.3);
  EXPECT_TRUE(mlp.slope <= 0.05);
  const Against resnet = beside_f32("resnet:depth=20", kSmallImages, 32);
  EXPECT_TRUE(resnet.loss <= 0.01);
  EXPECT_TRUE(resnet.error <= 0.5);
  EXPECT_TRUE(resnet.slope <= 0.1);
}

double accuracy(TrainingRun& run) {
  const Model model = build_model(run.model.spec, shape_of(run.data, 200, run.store->dtype()));
  Executor evaluation(model.graph, *run.store, nullptr, {.training = false});
  Feed test(*run.device, run.data, run.data.test);
  kernels::LossResult result;
  for (std::size_t first = 0; first + 200 <= test.count(); first += 200) {
    test.load_range(first, evaluation.input("x"), evaluation.input("labels"));
    evaluation.forward();
  }
  result = evaluation.take_loss();
  return static_cast<double>(result.correct) / static_cast<double>(result.rows);
}

// Held-out accuracies of two runs with other roundings differ as those of two seeds do: 2 % of 1000 samples
// at 90 % is twice the deviation of counting alone.
TEST(Bf16Network, LearnsAsWellAsF32) {
  double accuracies[2], losses[2];
  for (const DType dtype : {DType::f32, DType::bf16}) {
    TrainingRun run("mlp:depth=6,width=64,skip=on,norm=bn", dtype,
                    "synthetic:n=4000,test=1000,features=32,classes=5", 50);
    losses[dtype == DType::bf16] = run.train(0, 160);
    accuracies[dtype == DType::bf16] = accuracy(run);
  }
  fmt::print("  accuracy {} in f32, {} in bf16; last loss {:.4f}, {:.4f}\n", accuracies[0], accuracies[1],
             losses[0], losses[1]);
  EXPECT_GT(accuracies[0], 0.5);
  EXPECT_TRUE(std::fabs(accuracies[1] - accuracies[0]) <= 0.02);
}

}  // namespace
}  // namespace gradflow
