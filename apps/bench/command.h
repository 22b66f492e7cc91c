// `gradflow bench step`: how long a training step takes, where the time goes, and what the machine could do.
#pragma once

#include <functional>

namespace CLI {
class App;
}

namespace gradflow::app {

void add_bench(CLI::App& app, std::function<int()>& run);

}  // namespace gradflow::app
