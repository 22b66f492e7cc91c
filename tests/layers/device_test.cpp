// Whole training steps on every device there is: one recording replayed against launch by launch, with and without
// probes, and against the host.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <iterator>
#include <optional>
#include <string>
#include <vector>

#include "gradflow/engine/executor.h"
#include "gradflow/engine/feed.h"
#include "gradflow/layers/models.h"
#include "kernels/support.h"

namespace gradflow::device_steps {
namespace {

constexpr std::size_t kRows = 33;  // no multiple of anything a kernel works in
constexpr int kSteps = 6;          // the third and later ones are replayed

const char* const kNetworks[] = {"mlp:depth=6,width=19,act=tanh,skip=on,init=xavier", "mlp:depth=8,width=19,skip=on,branch=2,norm=bn",
                                 "resnet:depth=8", "bf16 mlp:depth=8,width=19,act=tanh,skip=on,branch=2,norm=bn", "bf16 resnet:depth=8"};

// On the host, where nothing is recorded and the other tests are, two of them are enough.
std::vector<std::string> networks(const Backend& device) {
  if (device.is_host()) return {kNetworks[0], kNetworks[2]};
  return {std::begin(kNetworks), std::end(kNetworks)};
}

struct Trained {
  std::vector<double> losses;
  std::vector<float> numbers;  // parameters and running statistics
};

// Batch and learning rate change with every step. `probing` says what step s measures.
Trained train(Backend& device, const std::string& text, ExecutorOptions options, Probing (*probing)(int) = nullptr) {
  static const Dataset data = load_dataset("synthetic:n=512,test=64,features=24,classes=5");
  const bool bf16 = text.starts_with("bf16 ");
  const Model model = build_model(parse_model(text.substr(bf16 ? 5 : 0)), {.batch = kRows,
                                                                           .features = 24,
                                                                           .classes = 5,
                                                                           .dtype = bf16 ? DType::bf16 : DType::f32,
                                                                           .image = {4, 3, 2}});
  ParameterStore store(device, model.graph);
  store.initialize(model.spec.initializer(), 4);
  Optimizer optimizer(store, {.learning_rate = 0.05, .momentum = 0.9, .weight_decay = 1e-3});
  if (probing) options.probes = all_scalar_probes(model.graph, true, true);
  Executor executor(model.graph, store, &optimizer, options);
  Feed feed(device, data, data.train);
  const Tensor x = executor.input("x"), labels = executor.input("labels");
  executor.set_input_launches([&] { feed.gather(x, labels); });
  Trained result;
  BatchOrder order(data.train.count(), kRows, 9);
  for (int s = 0; s < kSteps; ++s) {
    if (probing) executor.set_probing(probing(s));
    feed.stage(order.batch(static_cast<std::uint64_t>(s)), 9, static_cast<std::uint64_t>(s));
    optimizer.set_step(s + 1, 0.05 / (s + 1));
    executor.step();
    const kernels::LossResult loss = executor.take_loss();
    EXPECT_EQ(loss.rows, kRows);
    result.losses.push_back(loss.loss_sum / kRows);
  }
  for (const auto& tensors : {store.parameters(), store.states()})
    for (const Tensor& t : tensors) {
      std::vector<float> numbers(t.elements());
      device.copy_out(numbers.data(), t.data, t.bytes());
      result.numbers.insert(result.numbers.end(), numbers.begin(), numbers.end());
    }
  return result;
}

void expect_same_bits(const Trained& a, const Trained& b, const std::string& what) {
  EXPECT_EQ(a.losses, b.losses) << what;
  ASSERT_EQ(a.numbers.size(), b.numbers.size()) << what;
  EXPECT_EQ(std::memcmp(a.numbers.data(), b.numbers.data(), a.numbers.size() * sizeof(float)), 0) << what;
}

class DeviceSteps : public kernels::test::BackendTest {};

TEST_P(DeviceSteps, AReplayedStepIsTheStepLaunchByLaunch) {
  for (const std::string& text : networks(device())) {
    const Trained replayed = train(device(), text, {});
    expect_same_bits(replayed, train(device(), text, {}), text + ", again");
    expect_same_bits(replayed, train(device(), text, {.record = false}), text + ", launch by launch");
    EXPECT_NE(replayed.losses[kSteps - 1], replayed.losses[kSteps - 2]) << "a replay sees the new batch";
  }
}

// Every level has a recording of its own. Layers are kept apart on both sides: a fused pass may round in another place.
TEST_P(DeviceSteps, ProbesChangeNoBit) {
  for (const std::string& text : networks(device())) {
    const Trained plain = train(device(), text, {.fuse = false});
    expect_same_bits(plain, train(device(), text, {.fuse = false}, [](int) { return Probing::all; }), text + ", all");
    expect_same_bits(plain, train(device(), text, {.fuse = false}, [](int s) {
                       return s % 3 == 0 ? Probing::off : s % 3 == 1 ? Probing::scalars : Probing::all;
                     }), text + ", in turn");
  }
}

// Sums of some hundred terms of size one in another order: 1e-6 a layer, over at most 20 of them and six steps of a smooth
// training. In bf16 each of them rounds by 2^-9 at other places than the host: 20 * 0.002.
TEST_P(DeviceSteps, TheLossIsThatOfTheHost) {
  const auto host = kernels::open_cpu(1);
  for (const std::string& text : networks(device())) {
    const bool bf16 = text.starts_with("bf16");
    const Trained want = train(*host, text, {.fuse = false}), got = train(device(), text, {});
    for (int s = 0; s < kSteps; ++s) {
      const auto i = static_cast<std::size_t>(s);
      EXPECT_TRUE(std::fabs(got.losses[i] - want.losses[i]) <= (bf16 ? 0.04 : 2e-4) * want.losses[i])
          << text << ", step " << s << ": " << got.losses[i] << " for " << want.losses[i];
    }
  }
}

GRADFLOW_TEST_ON_BACKENDS(DeviceSteps);

}  // namespace
}  // namespace gradflow::device_steps
