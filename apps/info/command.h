// `gradflow info`: which program this is, and what it can run on.
#pragma once

#include <functional>

namespace CLI {
class App;
}

namespace gradflow::app {

void add_info(CLI::App& app, std::function<int()>& run);

}  // namespace gradflow::app
