#include "apps/common/make_executor.h"

#include <CLI/CLI.hpp>

#include "apps/common/option_checks.h"
#include "gradflow/engine/out_of_memory.h"

namespace gradflow::app {

void add_memory_limit(CLI::App& command, std::uint64_t& limit, const std::string& help) {
  command.add_option("--memory-limit", limit, help)->transform(CLI::Validator(size_to_bytes, ""))->type_name("SIZE");
}

std::unique_ptr<Executor> make_executor(const Model& model, const ModelShape& shape, ParameterStore& parameters,
                                        Optimizer* optimizer, const ExecutorOptions& options) {
  std::unique_ptr<Executor> executor;
  with_batch_advice(
      shape.batch,
      [&] { executor = std::make_unique<Executor>(model.graph, parameters, optimizer, options); },
      [&](std::int64_t batch) {
        ModelShape smaller = shape;
        smaller.batch = batch;
        return Executor::arena_bytes(build_model(model.spec, smaller).graph, parameters.backend(), optimizer != nullptr, options);
      });
  return executor;
}

}  // namespace gradflow::app
