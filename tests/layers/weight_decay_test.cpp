// Weight decay is for what multiplies: matrices of linear layers and convolutions, and nothing else.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <string>
#include <vector>

#include "gradflow/engine/device.h"
#include "gradflow/engine/executor.h"
#include "gradflow/engine/optimizer.h"
#include "gradflow/engine/random.h"
#include "gradflow/layers/models.h"

namespace gradflow {
namespace {

Model build_for_decay(const std::string& text) {
  return build_model(parse_model(text), {.batch = 3, .features = 8 * 8 * 3, .classes = 10, .image = {8, 8, 3}});
}

constexpr const char* kDecayed[] = {"mlp:depth=4,width=5",
                                    "mlp:depth=4,width=5,norm=bn,skip=on",
                                    "mlp:depth=4,width=5,skip=on,init=fixup",
                                    "plain:depth=8,norm=none",
                                    "plain:depth=8",
                                    "resnet:depth=8",
                                    "resnet:depth=8,version=v2",
                                    "resnet:depth=8,shortcut=B,norm=none",
                                    "resnet:depth=8,version=v2,shortcut=C,norm=none,branch_scale=skipinit",
                                    "resnet18",
                                    "resnet50:norm=none,init=fixup"};

TEST(WeightDecay, AppliesToTheMatricesOfLinearLayersAndConvolutionsAlone) {
  for (const char* text : kDecayed) {
    SCOPED_TRACE(text);
    const Graph whole = build_for_decay(text).graph;
    for (const Graph& graph : {whole, whole.fused({})}) {
      int decayed = 0, biases = 0;
      for (const ParameterSpec& p : graph.parameters()) {
        // The shapes say it without the layers' help: matrices have rank 2, convolutions 4, all else is a vector.
        EXPECT_EQ(p.decay, p.shape.rank() > 1) << p.name;
        EXPECT_EQ(p.decay, p.role == ParameterRole::weight) << p.name;
        decayed += p.decay;
        biases += !p.decay;
      }
      EXPECT_GE(decayed, 4);
      EXPECT_GE(biases, 1);
    }
  }
}

// One step of each with decay and without: where the two differ, decay acted.
TEST(WeightDecay, MovesNothingElseInAStep) {
  for (const char* text : {"mlp:depth=4,width=5,norm=bn", "plain:depth=8,norm=none", "resnet:depth=8,version=v2"}) {
    SCOPED_TRACE(text);
    const Model m = build_for_decay(text);
    const std::unique_ptr<Backend> device = open_device("cpu", 1);
    const auto after_a_step = [&](double decay) {
      ParameterStore store(*device, m.graph);
      store.initialize(m.spec.initializer(), 3);
      for (const Tensor& t : store.parameters())  // biases begin at zero, which no factor moves
        std::for_each_n(t.as<float>(), t.elements(), [](float& v) { v += 0.25f; });
      Optimizer optimizer(store, {.learning_rate = 0.1, .weight_decay = decay});
      Executor executor(m.graph, store, &optimizer, {});
      const Tensor x = executor.input("x"), labels = executor.input("labels");
      RandomStream(3, "x").fill_normal(std::span(x.as<float>(), x.elements()), 0, 1);
      std::memset(labels.data, 0, labels.bytes());
      executor.step();
      std::vector<std::vector<float>> values;
      for (const Tensor& t : store.parameters()) values.emplace_back(t.as<float>(), t.as<float>() + t.elements());
      return values;
    };
    const auto without = after_a_step(0), with = after_a_step(0.5);
    for (std::size_t i = 0; i < with.size(); ++i) {
      const ParameterSpec& p = m.graph.parameters()[i];
      EXPECT_EQ(with[i] != without[i], p.shape.rank() > 1) << p.name;
    }
  }
}

}  // namespace
}  // namespace gradflow
