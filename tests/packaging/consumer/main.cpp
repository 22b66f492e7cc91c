// A program outside gradflow: it trains a network with a layer of its own, and asks where the gradient went.
#include <gradflow/gradflow.h>

#include <cmath>
#include <cstdio>

using namespace gradflow;

struct Sine final : Layer {  // y = sin(x), f32 on the host
  std::string_view type() const noexcept override { return "sine"; }
  Inference infer(std::span<const TensorSpec> x) const override {
    return {.outputs = {x[0]}, .backward_reads_input = {0}};
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
  graph.add_loss<SoftmaxCrossEntropy>("loss", {graph.add<Linear>("head", {x}, data.classes), labels});

  ParameterStore parameters(*device, graph);
  parameters.initialize({Initializer::Kind::xavier}, 1);
  Optimizer sgd(parameters, {.learning_rate = 0.03, .momentum = 0.9});
  Executor network(graph, parameters, &sgd, {.probes = probes});

  Feed feed(*device, data, data.train);
  BatchOrder order(feed.count(), kBatch, 1);
  for (int step = 0; step <= 200; ++step) {
    const double loss = train_step(network, feed, order, step);
    if (step % 50 == 0) std::printf("step %d: loss %.3f\n", step, loss);
  }
  for (const ProbeReading& layer : network.read_probes()) std::printf("gradient %.2e\n", layer.stats.norm());
}
