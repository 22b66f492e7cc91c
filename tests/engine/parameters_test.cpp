// Initial values: one number per index, however many parts a parameter is drawn in.
#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "engine/toy_layers.h"
#include "gradflow/engine/device.h"
#include "gradflow/engine/graph.h"
#include "gradflow/engine/parameters.h"
#include "gradflow/engine/random.h"

namespace gradflow {
namespace {

using Kind = Initializer::Kind;

// More elements than are drawn at a time (2^22), and not a multiple of them.
constexpr std::int64_t kElements = (std::int64_t{1} << 22) + 12345;

TEST(Parameters, APartDrawnAloneHasTheNumbersOfTheWhole) {
  const auto device = open_device("cpu", 1);
  Graph g(DType::f64);
  g.add<toys::ScaledSine>("sine", {g.input("in", {{kElements}, DType::f64})});
  for (const Kind kind : {Kind::lecun, Kind::torch}) {
    ParameterStore store(*device, g);
    store.initialize({.kind = kind, .gain = 2}, 7);
    const RandomStream stream(7, store.parameter_specs()[0].name);
    std::vector<float> whole(static_cast<std::size_t>(kElements));  // fan_in 1
    if (kind == Kind::lecun)
      stream.fill_normal(std::span(whole), 0, 2);
    else
      stream.fill_uniform(std::span(whole), -2, 2);
    const double* w = store.parameters()[0].as<double>();
    std::size_t different = 0;
    for (std::size_t i = 0; i < whole.size(); ++i) different += w[i] != static_cast<double>(whole[i]);
    EXPECT_EQ(different, 0u);
  }
}

}  // namespace
}  // namespace gradflow
