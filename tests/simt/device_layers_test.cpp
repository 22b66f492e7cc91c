// Layers where they take another way on a GPU than on the host: through the emulated kernels, against the host.
#include <gtest/gtest.h>

#include <cmath>
#include <memory>
#include <string>
#include <vector>

#include "gradflow/engine/device.h"
#include "gradflow/engine/executor.h"
#include "gradflow/engine/random.h"
#include "gradflow/layers/models.h"
#include "simt/simt_backend.h"

namespace gradflow {
namespace {

class EmulatedGpu final : public kernels::cuda::SimtBackend {
 public:
  bool is_host() const noexcept override { return false; }
};

// Two steps; the loss and every parameter behind them.
std::vector<float> train_on(Backend& device, const std::string& text, bool fuse, std::size_t& launches) {
  const Model m = build_model(parse_model(text), {.batch = 6, .features = 5, .classes = 3});
  ParameterStore store(device, m.graph);
  store.initialize(m.spec.initializer(), 4);
  Optimizer optimizer(store, {.learning_rate = 0.1, .momentum = 0.9});
  Executor executor(m.graph, store, &optimizer, {.fuse = fuse});
  const Tensor x = executor.input("x"), labels = executor.input("labels");
  RandomStream(3, "x").fill_normal(std::span(x.as<float>(), x.elements()), 0, 1);
  for (std::size_t i = 0; i < labels.elements(); ++i) labels.as<std::int32_t>()[i] = static_cast<std::int32_t>(i % 3);
  for (int step = 1; step <= 2; ++step) {
    optimizer.set_step(step);
    executor.step();
  }
  launches = executor.plan().launches.size();
  std::vector<float> all = {static_cast<float>(executor.take_loss().loss_sum)};
  for (const Tensor& p : store.parameters()) all.insert(all.end(), p.as<float>(), p.as<float>() + p.elements());
  return all;
}

// Sums of some tens of terms of size one in another order, through two steps: a few hundred roundings.
TEST(DeviceLayers, FusedWeightLayersAreThoseOfTheHost) {
  for (const char* text : {"mlp:depth=4,width=9,act=tanh", "mlp:depth=6,width=9,skip=on,branch=2,branch_scale=rezero"}) {
    std::size_t fused_launches = 0, launches = 0;
    const std::unique_ptr<Backend> host = open_device("cpu", 1);
    const std::vector<float> want = train_on(*host, text, false, launches);
    EmulatedGpu device;
    const std::vector<float> got = train_on(device, text, true, fused_launches);
    EXPECT_LT(fused_launches, launches);
    ASSERT_EQ(got.size(), want.size());
    for (std::size_t i = 0; i < got.size(); ++i)
      EXPECT_TRUE(std::fabs(got[i] - want[i]) <= 2e-5f * std::fmax(1.0f, std::fabs(want[i]))) << text << " " << i;
  }
}

}  // namespace
}  // namespace gradflow
