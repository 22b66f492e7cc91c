#include "apps/study/layer_probes.h"

#include <algorithm>
#include <cmath>

#include "gradflow/engine/index.h"
#include "gradflow/kernels/error.h"

namespace gradflow::app {
namespace {

ValueId output_of(const Graph& graph, ParameterId weight) {
  for (const Node& node : graph.nodes())
    if (std::ranges::find(node.parameters, weight) != node.parameters.end()) return node.outputs.front();
  throw InternalError("a weight that no layer owns");
}

}  // namespace

int LayerProbes::request(ProbeTarget target, int id) {
  requests_.push_back({.target = target, .id = id});
  return static_cast<int>(requests_.size()) - 1;
}

LayerProbes::LayerProbes(const Model& model, bool with_updates, bool own_outputs) {
  const bool saturates = info_of(model.spec.conv ? model.spec.conv->act : model.spec.mlp.act).saturates;
  for (const WeightLayer& layer : model.layers) {
    Indices i;
    const ValueId z = own_outputs ? output_of(model.graph, layer.weight) : layer.z;
    i.z = request(ProbeTarget::value, z);
    i.gradient = request(ProbeTarget::gradient, z);
    requests_.back().exponents = true;
    requests_.back().split = i.split = layer.block_input && z == layer.z;
    if (layer.activation) {
      i.activation = request(ProbeTarget::value, *layer.activation);
      i.saturates = saturates;
    }
    i.weight = request(ProbeTarget::parameter, layer.weight);
    i.weight_gradient = request(ProbeTarget::parameter_gradient, layer.weight);
    if (with_updates) i.update = request(ProbeTarget::update, layer.weight);
    names_.push_back(layer.name);
    indices_.push_back(i);
  }
  sums_.resize(indices_.size());
}

void LayerProbes::add(const std::vector<ProbeReading>& readings) {
  ++added_;
  for (std::size_t l = 0; l < indices_.size(); ++l) {
    const Indices& i = indices_[l];
    Sums& s = sums_[l];
    const ProbeReading& g = readings[at(i.gradient)];
    const double norm = g.stats.norm();
    s.gradient += g.stats.sum_squares;
    s.gradient_low = added_ == 1 ? norm : std::min(s.gradient_low, norm);
    s.gradient_high = added_ == 1 ? norm : std::max(s.gradient_high, norm);
    s.zeros += g.stats.fraction(g.stats.zeros);
    s.denormals += g.stats.fraction(g.stats.denormals);
    s.nonfinite += g.stats.fraction(g.stats.nonfinite);
    s.exponents.resize(kExponentBins);
    for (std::size_t b = 0; b < kExponentBins; ++b) s.exponents[b] += g.stats.fraction(g.exponents[b]);
    if (i.split) {
      s.skip += g.split.first.sum_squares;
      s.branch += g.split.rest.sum_squares;
      s.dot += g.split.dot;
    }
    s.z += readings[at(i.z)].stats.mean_square();
    if (i.activation != kNobody) {
      const Stats& a = readings[at(i.activation)].stats;
      s.mean += a.mean();
      s.deviation += a.standard_deviation();
      s.saturated += a.fraction(a.saturated);
    }
    s.weight += readings[at(i.weight)].stats.sum_squares;
    s.weight_gradient += readings[at(i.weight_gradient)].stats.sum_squares;
    if (i.update != kNobody) s.update += readings[at(i.update)].stats.sum_squares;
  }
}

std::vector<LayerRow> LayerProbes::rows() const {
  std::vector<LayerRow> rows(indices_.size());
  const double n = added_;
  const auto root = [n](double sum_of_squares) { return std::sqrt(sum_of_squares / n); };
  for (std::size_t l = 0; l < rows.size(); ++l) {
    const Indices& i = indices_[l];
    const Sums& s = sums_[l];
    LayerRow& r = rows[l];
    r.layer = static_cast<int>(l) + 1;
    r.name = names_[l];
    r.gradient_norm = root(s.gradient);
    r.gradient_norm_low = s.gradient_low;
    r.gradient_norm_high = s.gradient_high;
    r.weight_gradient_norm = root(s.weight_gradient);
    r.weight_norm = root(s.weight);
    if (i.update != kNobody && s.weight > 0) r.update_ratio = std::sqrt(s.update / s.weight);
    r.z_rms = root(s.z);
    if (i.activation != kNobody) {
      r.activation_mean = s.mean / n;
      r.activation_std = s.deviation / n;
      if (i.saturates) r.saturated = s.saturated / n;
    }
    r.gradient_zeros = s.zeros / n;
    r.gradient_denormals = s.denormals / n;
    r.nonfinite = s.nonfinite / n;
    if (i.split) {
      r.skip_norm = root(s.skip);
      r.branch_norm = root(s.branch);
      const double norms = std::sqrt(s.skip * s.branch);
      if (norms > 0) r.skip_branch_cosine = s.dot / norms;
    }
    // Bins 1.. are the exponents; zeros and non-finite numbers have columns of their own.
    std::size_t first = 1, last = kFiniteBins;
    while (first <= last && s.exponents[first] == 0) ++first;
    while (last >= first && s.exponents[last] == 0) --last;
    r.first_exponent = kMinExponent + static_cast<int>(first) - 1;
    for (std::size_t b = first; b <= last; ++b) r.exponent_shares.push_back(s.exponents[b] / n);
  }
  for (std::size_t l = 0; l + 1 < rows.size(); ++l)
    if (rows[l + 1].gradient_norm > 0) rows[l].factor = rows[l].gradient_norm / rows[l + 1].gradient_norm;
  return rows;
}

}  // namespace gradflow::app
