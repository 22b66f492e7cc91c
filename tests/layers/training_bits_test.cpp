// What must not change a bit of training: probes, memory reuse, a second run. And what probes read is true.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <numeric>
#include <optional>

#include "gradflow/engine/device.h"
#include "gradflow/engine/executor.h"
#include "gradflow/engine/feed.h"
#include "gradflow/engine/train_step.h"
#include "gradflow/kernels/error.h"
#include "gradflow/layers/models.h"
#include "layers/harness.h"

namespace gradflow {
namespace {

const Dataset& data() {
  static const Dataset d = load_dataset("synthetic:n=512,test=64,features=24,classes=5");
  return d;
}

constexpr std::size_t kOddBatch = 33;  // odd: tails of vector loops are in use

struct Training {
  std::unique_ptr<Backend> device = open_device("cpu", 2);
  Model model;
  std::optional<ParameterStore> parameters;
  std::optional<Optimizer> optimizer;
  std::optional<Executor> executor;
  std::optional<Feed> feed;
  double loss = 0;

  // "bf16 mlp:...": a network of that type.
  explicit Training(const std::string& text,
                    const std::function<void(ExecutorOptions&, const Graph&)>& choose = {}) {
    const bool bf16 = text.starts_with("bf16 ");
    model = build_model(parse_model(text.substr(bf16 ? 5 : 0)),
                        {.batch = kOddBatch,
                         .features = 24,
                         .classes = 5,
                         .dtype = bf16 ? DType::bf16 : DType::f32,
                         .image = {4, 3, 2}});
    parameters.emplace(*device, model.graph);
    parameters->initialize(model.spec.initializer(), 4);
    optimizer.emplace(*parameters,
                      OptimizerConfig{.learning_rate = 0.05, .momentum = 0.9, .weight_decay = 1e-3});
    ExecutorOptions options;
    if (choose) choose(options, model.graph);
    executor.emplace(model.graph, *parameters, &*optimizer, options);
    feed.emplace(*device, data(), data().train);
  }

  void steps(int count) {
    BatchOrder order(data().train.count(), kOddBatch, 9);
    for (int s = 0; s < count; ++s) loss = train_step(*executor, *feed, order, static_cast<std::uint64_t>(s));
  }
};

void expect_same_weights(const Training& a, const Training& b, const std::string& what) {
  for (std::size_t p = 0; p < a.parameters->parameters().size(); ++p) {
    const Tensor &x = a.parameters->parameters()[p], &y = b.parameters->parameters()[p];
    EXPECT_EQ(std::memcmp(x.data, y.data, x.bytes()), 0)
        << what << ": " << a.model.graph.parameters()[p].name;
  }
  EXPECT_EQ(a.loss, b.loss) << what;
}

// By its parts, as a program with a schedule or an augmentation makes it.
TEST(TrainStep, IsTheStepOfItsParts) {
  Training whole("mlp:depth=3,width=16"), parts("mlp:depth=3,width=16");
  whole.steps(3);
  BatchOrder order(data().train.count(), kOddBatch, 9);
  for (std::uint64_t s = 0; s < 3; ++s) {
    parts.feed->load(order.batch(s), parts.executor->input("x"), parts.executor->input("labels"));
    parts.optimizer->set_step(static_cast<std::int64_t>(s) + 1);
    parts.executor->step();
    const kernels::LossResult loss = parts.executor->take_loss();
    EXPECT_EQ(loss.rows, static_cast<std::uint64_t>(kOddBatch));
    parts.loss = loss.loss_sum / static_cast<double>(loss.rows);
  }
  expect_same_weights(whole, parts, "by its parts");
  Executor without(whole.model.graph, *whole.parameters);
  EXPECT_THROW(train_step(without, *whole.feed, order, 0), InternalError);
}

class Bits : public testing::TestWithParam<std::string> {};

TEST_P(Bits, TwoRunsAreEqual) {
  Training a(GetParam()), b(GetParam());
  a.steps(5);
  b.steps(5);
  expect_same_weights(a, b, "second run");
  EXPECT_TRUE(std::isfinite(a.loss));
}

TEST_P(Bits, ProbesChangeNothing) {
  Training plain(GetParam());
  plain.steps(5);
  for (const bool fused : {true, false}) {
    Training probed(GetParam(), [&](ExecutorOptions& o, const Graph& g) {
      o.probes = all_scalar_probes(g, true, true);
      for (ProbeRequest& r : o.probes) {
        r.exponents = r.target != ProbeTarget::update;
        r.alive = r.target == ProbeTarget::value;
      }
      o.fuse_probes = fused;
    });
    probed.steps(5);
    expect_same_weights(plain, probed, fused ? "fused probes" : "probes of their own");
    Training off(GetParam(),
                 [&](ExecutorOptions& o, const Graph& g) { o.probes = all_scalar_probes(g, true, true); });
    off.executor->set_probing(Probing::off);
    off.steps(5);
    expect_same_weights(plain, off, "probes switched off");
  }
}

TEST_P(Bits, MemoryReuseChangesNothing) {
  Training plain(GetParam());
  plain.steps(5);
  Training apart(GetParam(), [](ExecutorOptions& o, const Graph&) { o.reuse = false; });
  apart.steps(5);
  expect_same_weights(plain, apart, "reuse off");
  Training kept(GetParam(), [](ExecutorOptions& o, const Graph&) { o.retain = true; });
  kept.steps(5);
  expect_same_weights(plain, kept, "retain");
  EXPECT_LT(plain.executor->plan().arena_bytes, kept.executor->plan().arena_bytes);
}

// Statistics that ride along in other passes, against passes of their own and against numbers computed here
// from the tensors. Counts and maxima are exact; sums may be added in another order: n * 2^-53 relative to
// the sum of absolute values, which sqrt(n * sum_squares) bounds.
TEST_P(Bits, ProbesReadTheTruth) {
  const auto all = [](bool fused) {
    return [fused](ExecutorOptions& o, const Graph& g) {
      o.probes = all_scalar_probes(g, true, true);
      for (ProbeRequest& r : o.probes) r.exponents = r.target != ProbeTarget::update;
      o.fuse_probes = fused;
      o.retain = true;
    };
  };
  Training fused(GetParam(), all(true)), own(GetParam(), all(false));
  std::size_t own_launches = 0;
  for (const ProbePlace& p : fused.executor->plan().probe_places)
    own_launches += p.where == ProbePlace::Where::own_launch;
  EXPECT_LT(own_launches, fused.executor->plan().probe_places.size() / 2)
      << "most statistics should ride along";
  std::size_t histograms = 0;
  for (const ProbePlace& p : fused.executor->plan().exponent_places)
    histograms += p.where != ProbePlace::Where::own_launch && p.where != ProbePlace::Where::none;
  EXPECT_GT(histograms, 0u) << "histograms should ride along in the activations";
  fused.steps(2);
  own.steps(2);
  const auto a = fused.executor->read_probes(), b = own.executor->read_probes();
  const auto& requests = fused.executor->options().probes;
  for (std::size_t i = 0; i < requests.size(); ++i) {
    const ProbeRequest& r = requests[i];
    const bool on_value = r.target == ProbeTarget::value || r.target == ProbeTarget::gradient;
    const std::string what =
        fmt::format("{} of {}", name_of(r.target),
                    on_value ? fused.model.graph.value(r.id).name : fused.model.graph.parameter(r.id).name);
    const Stats &x = a[i].stats, &y = b[i].stats;
    EXPECT_GT(x.count, 0u) << what;
    EXPECT_EQ(x.count, y.count) << what;
    EXPECT_EQ(x.zeros, y.zeros) << what;
    EXPECT_EQ(x.denormals, y.denormals) << what;
    EXPECT_EQ(x.nonfinite, y.nonfinite) << what;
    EXPECT_EQ(x.saturated, y.saturated) << what;
    EXPECT_EQ(x.max_abs_bits, y.max_abs_bits) << what;
    EXPECT_EQ(a[i].exponents, b[i].exponents) << what;
    if (r.exponents) {
      EXPECT_EQ(std::accumulate(a[i].exponents.begin(), a[i].exponents.end(), std::uint64_t{0}), x.count) << what;
      EXPECT_EQ(a[i].exponents[kZeroBin], x.zeros) << what;
    }
    const double n = static_cast<double>(x.count), unit = 2 * 0x1p-19;  // stats.h's bound, for both sides
    EXPECT_TRUE(std::fabs(x.sum_squares - y.sum_squares) <= unit * y.sum_squares) << what;
    EXPECT_TRUE(std::fabs(x.sum - y.sum) <= unit * std::sqrt(n * y.sum_squares)) << what;

    if (r.target == ProbeTarget::update || r.target == ProbeTarget::parameter) continue;  // changed since
    const Tensor t = r.target == ProbeTarget::value      ? fused.executor->value(r.id)
                     : r.target == ProbeTarget::gradient ? fused.executor->gradient(r.id)
                                                         : fused.executor->parameter_gradient(r.id);
    ASSERT_TRUE(t) << what;
    double sum = 0, squares = 0, largest = 0;
    std::uint64_t zeros = 0;
    for (std::size_t e = 0; e < t.elements(); ++e) {
      const double v = test::number_at(t, e);
      sum += v, squares += v * v, largest = std::fmax(largest, std::fabs(v)), zeros += v == 0;
    }
    EXPECT_EQ(x.count, t.elements()) << what;
    EXPECT_EQ(x.zeros, zeros) << what;
    EXPECT_EQ(x.max_abs(), largest) << what;
    EXPECT_TRUE(std::fabs(x.sum_squares - squares) <= unit * squares) << what;
    EXPECT_TRUE(std::fabs(x.sum - sum) <= unit * std::sqrt(n * squares)) << what;
  }
}

INSTANTIATE_TEST_SUITE_P(Networks, Bits,
                         testing::Values("mlp:depth=6,width=19",
                                         "mlp:depth=6,width=19,act=sigmoid,init=xavier,norm=bn",
                                         "mlp:depth=6,width=19,act=tanh,skip=on,init=xavier",
                                         "mlp:depth=8,width=19,skip=on,branch=2,norm=bn",
                                         "bf16 mlp:depth=8,width=19,act=tanh,skip=on,branch=2,norm=bn",
                                         "bf16 resnet:depth=8"),
                         [](const auto& network) { return fmt::format("net{}", network.index); });

// A pass that takes statistics along has room for one request; a second one must not take the first one's
// place.
TEST(Probes, TwoRequestsOnOneTensorReadTheSame) {
  Training t("mlp:depth=4,width=11", [](ExecutorOptions& o, const Graph& g) {
    const ValueId relu = g.find_value("block01.relu");
    for (int i = 0; i < 2; ++i) {
      o.probes.push_back({.target = ProbeTarget::value, .id = relu, .exponents = true});
      o.probes.push_back({.target = ProbeTarget::gradient, .id = relu, .exponents = true});
      o.probes.push_back({.target = ProbeTarget::parameter_gradient, .id = 0, .exponents = true});
    }
  });
  t.steps(1);
  const auto readings = t.executor->read_probes();
  for (std::size_t i = 0; i < 3; ++i) {
    EXPECT_GT(readings[i].stats.count, 0u);
    EXPECT_EQ(readings[i].stats.count, readings[i + 3].stats.count);
    EXPECT_EQ(readings[i].stats.max_abs_bits, readings[i + 3].stats.max_abs_bits);
    EXPECT_EQ(readings[i].exponents, readings[i + 3].exponents);
    EXPECT_EQ(std::accumulate(readings[i].exponents.begin(), readings[i].exponents.end(), std::uint64_t{0}),
              readings[i].stats.count);
  }
}

// A histogram that rides along must obey the step's setting as one of its own does.
TEST(Probes, ScalarsAloneLeaveHistogramsEmpty) {
  Training t("mlp:depth=4,width=11", [](ExecutorOptions& o, const Graph& g) {
    const ValueId relu = g.find_value("block01.relu");
    o.probes = {{.target = ProbeTarget::value, .id = relu, .exponents = true},
                {.target = ProbeTarget::gradient, .id = relu, .stats = false, .exponents = true}};
  });
  t.steps(1);
  const auto all = t.executor->read_probes();
  EXPECT_GT(all[0].exponents[kZeroBin], 0u);
  EXPECT_EQ(all[1].stats.count, 0u);
  EXPECT_EQ(std::accumulate(all[1].exponents.begin(), all[1].exponents.end(), std::uint64_t{0}), all[0].stats.count);
  t.executor->set_probing(Probing::scalars);
  t.steps(1);
  const auto scalars = t.executor->read_probes();
  EXPECT_EQ(scalars[0].stats.count, all[0].stats.count);
  for (const ProbeReading& r : scalars) EXPECT_EQ(r.exponents, std::vector<std::uint64_t>(kExponentBins));
}

// history: the last steps' scalars, oldest first.
TEST(ProbeHistory, KeepsTheLastSteps) {
  const auto probe = [](ExecutorOptions& o, const Graph& g) {
    o.probes = {{.target = ProbeTarget::parameter_gradient, .id = g.find_parameter("stem.linear.weight")}};
  };
  std::vector<double> norms;
  for (int count = 1; count <= 5; ++count) {
    Training t("mlp:depth=4,width=11", probe);
    t.steps(count);
    norms.push_back(t.executor->read_probes()[0].stats.norm());
  }
  Training t("mlp:depth=4,width=11", [&](ExecutorOptions& o, const Graph& g) {
    probe(o, g);
    o.history = 3;
  });
  t.steps(2);
  ASSERT_EQ(t.executor->read_history().size(), 2u);
  Training u("mlp:depth=4,width=11", [&](ExecutorOptions& o, const Graph& g) {
    probe(o, g);
    o.history = 3;
  });
  u.steps(5);
  const auto history = u.executor->read_history();
  ASSERT_EQ(history.size(), 3u);
  for (std::size_t i = 0; i < 3; ++i) EXPECT_EQ(history[i][0].norm(), norms[i + 2]);
}

}  // namespace
}  // namespace gradflow
