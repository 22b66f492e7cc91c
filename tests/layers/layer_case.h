// A layer by a name, for tests that run over many.
#pragma once

#include <functional>
#include <string>

#include "gradflow/engine/graph.h"

namespace gradflow::test {

struct LayerCase {
  std::string name;
  std::function<ValueId(Graph&, const std::string&, ValueId)> add;  // behind a value of the test's shape
};

template <class L, class... Args>
LayerCase single(const std::string& name, Args... args) {
  return {name, [=](Graph& g, const std::string& node, ValueId x) { return g.add<L>(node, {x}, args...); }};
}

}  // namespace gradflow::test
