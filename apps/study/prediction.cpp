#include "apps/study/prediction.h"

#include <cmath>

#include "gradflow/layers/mean_field.h"

namespace gradflow::app {
namespace {

struct InputMoments {
  std::vector<double> mean_squares;  // per sample
  double variance = 0;               // over the batch, mean over features
};

InputMoments input_moments(const Dataset& data, std::span<const std::int32_t> batch) {
  const std::size_t features = data.shape.features();
  InputMoments m;
  std::vector<double> sum(features), sum_squares(features);
  std::vector<std::uint8_t> pixels(features);
  for (const std::int32_t sample : batch) {
    data.train.read_images(static_cast<std::size_t>(sample), pixels);
    double square = 0;
    for (std::size_t f = 0; f < features; ++f) {
      const double x = (pixels[f] / 255.0 - data.mean) * data.inv_std;
      square += x * x;
      sum[f] += x;
      sum_squares[f] += x * x;
    }
    m.mean_squares.push_back(square / static_cast<double>(features));
  }
  const double n = static_cast<double>(batch.size());
  for (std::size_t f = 0; f < features; ++f) m.variance += sum_squares[f] / n - (sum[f] / n) * (sum[f] / n);
  m.variance /= static_cast<double>(features);
  return m;
}

}  // namespace

void add_predictions(const Model& model, const Dataset& data, std::span<const std::int32_t> batch, std::vector<LayerRow>& rows) {
  if (model.layers.size() < 2) return;
  const MlpSpec& spec = model.spec.mlp;
  if (spec.fixup) return;  // its last layer starts at zero: no gradient to predict
  const InputMoments input = input_moments(data, batch);
  MeanFieldNet net;
  net.act = spec.act;
  net.batch_norm = spec.batch_norm;
  net.residual = spec.skip;
  net.branch = spec.branch;
  net.branch_scale = spec.branch_scale;
  net.batch = static_cast<double>(batch.size());
  net.q0 = input.mean_squares;
  net.input_variance = input.variance;
  for (const WeightLayer& layer : model.layers) {
    const ParameterSpec& weight = model.graph.parameter(layer.weight);
    net.sw2.push_back(spec.initializer.scaled_variance(weight));
    net.sb2.push_back(spec.bias ? spec.initializer.bias_variance(weight) : 0.0);
  }
  const MeanFieldPrediction prediction = predict_mean_field(net);

  // Points are the stem, the blocks' outputs and the logits: every layer, or every `branch`-th.
  const double anchor = rows.back().gradient_norm;
  const std::size_t points = prediction.log10_gradient_relative.size(), last = rows.size() - 1;
  const std::size_t stride = spec.skip ? static_cast<std::size_t>(spec.branch) : 1;
  for (std::size_t p = 0; p < points; ++p) {
    const std::size_t row = p + 1 == points ? last : p * stride;
    rows[row].predicted_norm = anchor * std::pow(10.0, prediction.log10_gradient_relative[p]);
  }
}

}  // namespace gradflow::app
