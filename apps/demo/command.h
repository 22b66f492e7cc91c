// `gradflow demo`: the main job. A factorial of deep networks, and where the gradient went in each.
#pragma once

#include <functional>

namespace CLI {
class App;
}

namespace gradflow::app {

void add_demo(CLI::App& app, std::function<int()>& run);

// `gradflow report`: writes the report of an earlier study again, from its report.json.
void add_report(CLI::App& app, std::function<int()>& run);

}  // namespace gradflow::app
