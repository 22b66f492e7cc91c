// `gradflow bench kernels`.
#pragma once

#include <functional>

namespace CLI {
class App;
}

namespace gradflow::app {

void add_bench_kernels(CLI::App& bench, std::function<int()>& run);

}  // namespace gradflow::app
