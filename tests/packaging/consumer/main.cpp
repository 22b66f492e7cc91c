// A program outside gradflow: it trains a small network with a layer of its own, and asks where the
// gradient went.
#include <cmath>
#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include <gradflow/engine/device.h>
#include <gradflow/engine/executor.h>
#include <gradflow/engine/feed.h>
#include <gradflow/layers/linear.h>
#include <gradflow/layers/softmax_cross_entropy.h>

using namespace gradflow;

struct Sine final : Layer {  // y = sin(x) in f32 on the host
  std::string_view type() const noexcept override { return "sine"; }
  Inference infer(std::span<const TensorSpec> x) const override {
    Inference r;
    r.outputs = {x[0]};
    r.backward_reads_input = {0};
    return r;
  }
  void forward(ForwardContext& c) const override {
    const float* x = c.x[0].as<float>();
    for (std::size_t i = 0; i < c.x[0].elements(); ++i) c.y[0].as<float>()[i] = std::sin(x[i]);
  }
  void backward(BackwardContext& c) const override {  // dx = or += cos(x) * dy
    const float *x = c.x[0].as<float>(), *dy = c.dy[0].as<float>();
    float* dx = c.dx[0].as<float>();
    const bool add = c.modes[0] == GradMode::accumulate;
    for (std::size_t i = 0; i < c.x[0].elements(); ++i) dx[i] = (add ? dx[i] : 0) + std::cos(x[i]) * dy[i];
  }
};

int main() {
  const auto device = open_device("cpu");
  const Dataset data = load_dataset("synthetic:features=16");
  constexpr int kBatch = 64;

  Graph graph;
  ValueId x = graph.input("x", {{kBatch, 16}});
  const ValueId labels = graph.input("labels", {{kBatch}, DType::i32});
  std::vector<ProbeRequest> probes;
  for (int block = 1; block <= 8; ++block) {
    x = graph.add<Linear>("linear" + std::to_string(block), {x}, 32);
    probes.push_back({ProbeTarget::gradient, x});
    x = graph.add<Sine>("sine" + std::to_string(block), {x});
  }
  x = graph.add<Linear>("head", {x}, data.classes);
  graph.add_loss("loss", std::make_shared<SoftmaxCrossEntropy>(), {x, labels});

  ParameterStore parameters(*device, graph);
  parameters.initialize({Initializer::Kind::xavier}, 1);
  Optimizer sgd(parameters, {.learning_rate = 0.05, .momentum = 0.9});
  Executor network(graph, parameters, &sgd, {.probes = probes});

  Feed feed(*device, data, data.train);
  BatchOrder order(feed.count(), kBatch, 1);
  std::vector<std::int32_t> batch(kBatch);
  double first = 0, last = 0;
  for (int step = 0; step < 200; ++step) {
    order.batch_indices(static_cast<std::uint64_t>(step), batch);
    feed.load(batch, network.input("x"), network.input("labels"));
    sgd.set_step(step + 1);
    network.step();
    last = network.take_loss().loss_sum / kBatch;
    if (step == 0) first = last;
  }
  std::printf("loss %.3f -> %.3f; gradient by layer:", first, last);
  bool arrives = true;
  for (const ProbeReading& reading : network.read_probes()) {
    std::printf(" %.2e", reading.stats.norm());
    arrives = arrives && reading.stats.norm() > 0;
  }
  const bool learned = last < 0.5 * first && arrives;
  std::puts(learned ? "\nconsumer: ok" : "\nconsumer: did not learn");
  return learned ? 0 : 1;
}
