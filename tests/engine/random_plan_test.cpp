// Plans of random graphs: every promise of plan.h holds, and what is computed does not depend on the plan.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <optional>
#include <random>

#include "engine/plan_checks.h"
#include "engine/random_graph.h"
#include "gradflow/engine/arena.h"
#include "gradflow/engine/device.h"
#include "gradflow/engine/executor.h"

namespace gradflow {
namespace {

using test::faults_of;
using test::random_graph;
using test::random_options;

constexpr unsigned kGraphs = 300;

std::string all(const std::vector<std::string>& lines) {
  std::string text;
  for (const std::string& line : lines) text += line + "\n";
  return text;
}

TEST(RandomPlan, KeepsEveryPromise) {
  const auto device = open_device("cpu", 1);
  std::size_t shared = 0;
  for (unsigned seed = 1; seed <= kGraphs; ++seed) {
    const Graph graph = random_graph(seed, 4 + static_cast<int>(seed % 40));
    const PlanOptions options = random_options(graph, seed);
    const Plan plan = make_plan(graph, options, *device);
    EXPECT_EQ(all(faults_of(graph, options, plan)), "") << "seed " << seed;
    EXPECT_GE(plan.arena_bytes, test::largest_live(plan)) << "seed " << seed;
    EXPECT_LE(plan.arena_bytes, plan.bytes_without_reuse) << "seed " << seed;
    for (std::size_t i = 0; i < plan.buffers.size(); ++i)
      shared += plan.buffers[i].storage != static_cast<int>(i);
  }
  EXPECT_GT(shared, 500u) << "hardly anything ran in place: the graphs do not test what they should";
}

TEST(RandomPlan, IsTheSameEveryTime) {
  const auto device = open_device("cpu", 1);
  for (unsigned seed = 1; seed <= 20; ++seed) {
    const Graph graph = random_graph(seed, 30);
    const PlanOptions options = random_options(graph, seed);
    const Plan a = make_plan(graph, options, *device), b = make_plan(graph, options, *device);
    ASSERT_EQ(a.buffers.size(), b.buffers.size());
    for (std::size_t i = 0; i < a.buffers.size(); ++i) EXPECT_EQ(a.buffers[i].offset, b.buffers[i].offset);
    EXPECT_EQ(a.modes, b.modes);
  }
}

// The checks themselves: a plan with one thing wrong must not pass.
TEST(RandomPlan, ChecksNoticeWrongPlans) {
  const auto device = open_device("cpu", 1);
  int modes = 0, places = 0, shortened = 0, moved = 0;
  for (unsigned seed = 1; seed <= 40; ++seed) {
    const Graph graph = random_graph(seed, 30);
    const PlanOptions options{.update = UpdatePlacement::immediate};
    const Plan good = make_plan(graph, options, *device);
    ASSERT_EQ(all(faults_of(graph, options, good)), "");
    Plan bad = good;
    for (auto& node : bad.modes)
      for (GradMode& mode : node)
        if (mode == GradMode::accumulate) mode = GradMode::overwrite;
    modes += !faults_of(graph, options, bad).empty();
    bad = good;
    for (Buffer& b : bad.buffers) b.offset = 0;  // everything over everything
    places += !faults_of(graph, options, bad).empty();
    bad = good;
    for (Buffer& b : bad.buffers) b.end = b.begin;
    shortened += !faults_of(graph, options, bad).empty();
    bad = good;
    for (Buffer& b : bad.buffers)
      if (b.offset >= kArenaAlignment) b.offset -= kArenaAlignment;
    moved += !faults_of(graph, options, bad).empty();
  }
  EXPECT_GE(modes, 35);
  EXPECT_EQ(places, 40);
  EXPECT_EQ(shortened, 40);
  EXPECT_EQ(moved, 40);
}

// Two steps of a random graph under some options, and everything they leave behind as bits.
struct RandomNetwork {
  Graph graph;
  std::unique_ptr<Backend> device = open_device("cpu", 1);
  ParameterStore parameters;
  std::optional<Optimizer> optimizer;
  std::optional<Executor> executor;

  RandomNetwork(unsigned seed, ExecutorOptions options, bool update)
      : graph(random_graph(seed, 25)), parameters(*device, graph) {
    parameters.initialize({}, seed);
    if (update)
      optimizer.emplace(parameters,
                        OptimizerConfig{.learning_rate = 0.01, .momentum = 0.9, .weight_decay = 0.1});
    executor.emplace(graph, parameters, optimizer ? &*optimizer : nullptr, std::move(options));
    std::mt19937 random(seed);
    std::uniform_real_distribution<double> uniform(-1, 1);
    for (const Value& v : graph.values()) {
      if (v.producer != kNobody) continue;
      const Tensor x = executor->input(v.name);
      for (std::size_t i = 0; i < x.elements(); ++i) x.as<double>()[i] = uniform(random);
    }
  }
};

void expect_same_bits(const Tensor& a, const Tensor& b, const std::string& what) {
  ASSERT_EQ(a.bytes(), b.bytes());
  ASSERT_EQ(a.data != nullptr, b.data != nullptr) << what;
  EXPECT_TRUE(!a || std::memcmp(a.data, b.data, a.bytes()) == 0) << what;
}

std::vector<ValueId> inputs_of(const Graph& graph) {
  std::vector<ValueId> inputs;
  for (ValueId v = 0; v < static_cast<ValueId>(graph.values().size()); ++v)
    if (graph.value(v).producer == kNobody && !graph.value(v).consumers.empty()) inputs.push_back(v);
  return inputs;
}

TEST(RandomPlan, ReuseAndRetainChangeNoBit) {
  for (unsigned seed = 1; seed <= 60; ++seed) {
    ExecutorOptions plain;
    plain.reuse = false;
    plain.input_gradients = inputs_of(random_graph(seed, 25));
    for (const bool update : {false, true}) {
      RandomNetwork reference(seed, plain, update);
      reference.executor->step();
      reference.executor->step();
      const double loss = reference.executor->take_loss().loss_sum;
      EXPECT_TRUE(std::isfinite(loss)) << "seed " << seed;
      for (const bool retain : {false, true}) {
        ExecutorOptions options = plain;
        options.reuse = true;
        options.retain = retain;
        RandomNetwork run(seed, options, update);
        run.executor->step();
        run.executor->step();
        const std::string what = fmt::format("seed {}, update {}, retain {}", seed, update, retain);
        EXPECT_EQ(run.executor->take_loss().loss_sum, loss) << what;
        for (std::size_t p = 0; p < run.graph.parameters().size(); ++p) {
          expect_same_bits(run.parameters.parameters()[p], reference.parameters.parameters()[p], what);
          if (!update || retain) {
            const ParameterId id = static_cast<ParameterId>(p);
            expect_same_bits(run.executor->parameter_gradient(id), reference.executor->parameter_gradient(id),
                             what);
          }
        }
        for (const ValueId v : options.input_gradients)
          expect_same_bits(run.executor->gradient(v), reference.executor->gradient(v), what);
        for (ValueId v = 0; retain && v < static_cast<ValueId>(run.graph.values().size()); ++v) {
          expect_same_bits(run.executor->value(v), reference.executor->value(v),
                           what + ", value " + run.graph.value(v).name);
          expect_same_bits(run.executor->gradient(v), reference.executor->gradient(v),
                           what + ", gradient of " + run.graph.value(v).name);
        }
      }
    }
  }
}

TEST(RandomPlan, GradientsAreTheSlopesOfTheLoss) {
  // Central differences with h = 1e-5: truncation h^2 f'''/6 is about 1e-11 f''', rounding 1e-16 |loss| / h
  // about 1e-10 for losses near 10; 1e-7 leaves room for f''' of composed layers.
  constexpr double kStep = 1e-5, kTolerance = 1e-7;
  double largest = 0;
  for (unsigned seed = 1; seed <= 25; ++seed) {
    ExecutorOptions options;
    options.input_gradients = inputs_of(random_graph(seed, 25));
    RandomNetwork run(seed, options, false);
    run.executor->step();
    const auto loss = [&] {
      run.executor->take_loss();
      run.executor->forward();
      return run.executor->take_loss().loss_sum;
    };
    std::mt19937 random(seed);
    const auto check = [&](const Tensor& x, const std::vector<double>& gradient, const std::string& name) {
      for (int draw = 0; draw < 3; ++draw) {
        const std::size_t i = random() % x.elements();
        double& element = x.as<double>()[i];
        const double kept = element;
        element = kept + kStep;
        const double above = loss();
        element = kept - kStep;
        const double below = loss();
        element = kept;
        const double slope = (above - below) / (2 * kStep), error = std::fabs(slope - gradient[i]);
        largest = std::fmax(largest, std::fabs(gradient[i]));
        EXPECT_TRUE(error <= kTolerance * std::fmax(1.0, std::fabs(gradient[i])))
            << "seed " << seed << ", " << name << "[" << i << "]: " << gradient[i] << ", by differences "
            << slope;
      }
    };
    const auto copy = [](const Tensor& t) {
      return std::vector<double>(t.as<double>(), t.as<double>() + t.elements());
    };
    std::vector<std::vector<double>> of_parameters, of_inputs;  // forward() alone will overwrite them
    for (std::size_t p = 0; p < run.graph.parameters().size(); ++p)
      of_parameters.push_back(copy(run.executor->parameter_gradient(static_cast<ParameterId>(p))));
    for (const ValueId v : options.input_gradients)
      of_inputs.push_back(run.executor->gradient(v) ? copy(run.executor->gradient(v))
                                                    : std::vector<double>());
    for (std::size_t p = 0; p < of_parameters.size(); ++p)
      check(run.parameters.parameters()[p], of_parameters[p], run.graph.parameters()[p].name);
    for (std::size_t i = 0; i < of_inputs.size(); ++i)
      if (!of_inputs[i].empty())
        check(run.executor->value(options.input_gradients[i]), of_inputs[i],
              run.graph.value(options.input_gradients[i]).name);
  }
  EXPECT_GT(largest, 0.1) << "gradients too small to prove anything";
}

}  // namespace
}  // namespace gradflow
