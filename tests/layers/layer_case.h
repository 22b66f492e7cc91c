// A layer by a name, for tests that run over many, and the check of its gradients.
#pragma once

#include <functional>
#include <string>

#include "gradflow/engine/graph.h"
#include "layers/harness.h"

namespace gradflow::test {

struct LayerCase {
  std::string name;
  std::function<ValueId(Graph&, const std::string&, ValueId)> add;  // behind a value of the test's shape
};

template <class L, class... Args>
LayerCase single(const std::string& name, Args... args) {
  return {name, [=](Graph& g, const std::string& node, ValueId x) { return g.add<L>(node, {x}, args...); }};
}

// x is read by `readers` of such layers, each with a loss of its own: one overwrites its gradient, the others add to it,
// and none of the parts may be lost. Returns the number of elements compared.
inline int check_with_readers(const LayerCase& layer, const TensorSpec& input, int readers) {
  Graph g(DType::f64);
  const ValueId x = g.input("x", input);
  const auto seed = static_cast<std::uint64_t>(readers == 1 ? 3 : 4);
  for (int i = 0; i < readers; ++i) {
    const std::string number = std::to_string(i + 1);
    add_cotangent(g, "loss" + number, layer.add(g, "layer" + number, x), seed + static_cast<std::uint64_t>(i));
  }
  Network n(g, seed, {.retain = true, .input_gradients = {x}});
  return check_gradients(n);
}

}  // namespace gradflow::test
