// `gradflow train`: trains a network and keeps log, checkpoints and summary.
#pragma once

#include <functional>

namespace CLI {
class App;
}

namespace gradflow::app {

void add_train(CLI::App& app, std::function<int()>& run);

}  // namespace gradflow::app
