// `gradflow measure`: one forward and backward at initialization, and what every tensor looks like.
#pragma once

#include <functional>

namespace CLI {
class App;
}

namespace gradflow::app {

void add_measure(CLI::App& app, std::function<int()>& run);

}  // namespace gradflow::app
