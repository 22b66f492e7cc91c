// Executors that say which batch would fit when memory does not suffice.
#pragma once

#include <cstdint>
#include <limits>
#include <memory>
#include <string>

#include "gradflow/engine/executor.h"
#include "gradflow/layers/models.h"

namespace CLI {
class App;
}

namespace gradflow::app {

inline constexpr std::uint64_t kNoMemoryLimit = std::numeric_limits<std::uint64_t>::max();

// --memory-limit SIZE
void add_memory_limit(CLI::App& command, std::uint64_t& limit,
                      const std::string& help = "what parameters, moments and the step's tensors may take together, e.g. 6GiB\n"
                                                "[what is free]");

// `model` was built for `shape`.
std::unique_ptr<Executor> make_executor(const Model& model, const ModelShape& shape, ParameterStore& parameters,
                                        Optimizer* optimizer, const ExecutorOptions& options);

}  // namespace gradflow::app
