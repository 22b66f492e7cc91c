// `gradflow plan`: the planned step, every launch and every byte, without running it.
#pragma once

#include <functional>

namespace CLI {
class App;
}

namespace gradflow::app {

void add_plan(CLI::App& app, std::function<int()>& run);

}  // namespace gradflow::app
