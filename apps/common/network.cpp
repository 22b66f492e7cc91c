#include "apps/common/network.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <filesystem>
#include <utility>
#include <vector>

#include "apps/common/option_checks.h"
#include "gradflow/engine/device.h"
#include "gradflow/engine/file.h"
#include "gradflow/engine/text.h"
#include "gradflow/kernels/error.h"

namespace gradflow::app {

void add_network_options(CLI::App& command, NetworkOptions& o) {
  command.add_option("--model", o.model, "network, e.g. mlp:depth=50,act=tanh (below)")
      ->required()
      ->type_name("SPEC");
  command.add_option("--data", o.data, kDataHelp)
      ->type_name("SPEC")
      ->capture_default_str();
  command.add_option("--batch", o.batch, "samples of a step")
      ->check(whole_number(1, kMostSamples))
      ->type_name("N")
      ->capture_default_str();
  command.add_option("--seed", o.seed, "of weights and batch order")
      ->check(whole_number(0))
      ->type_name("N")
      ->capture_default_str();
  command.add_option("--device", o.device, "auto, cpu, cuda or cuda:N")
      ->type_name("D")
      ->capture_default_str();
  add_precision_options(command, o.precision);
  add_memory_limit(command, o.memory_limit);
}

void add_output_file(CLI::App& command, const std::string& option, std::string& path, const std::string& help) {
  const auto dash = [](std::string& text) {
    if (text == "-") text = "/dev/stdout";
    return std::string();
  };
  command.add_option(option, path, help)->transform(CLI::Validator(dash, ""))->type_name("FILE");
}

void add_no_fuse(CLI::App& command, bool& no_fuse) {
  command.add_flag("--no-fuse", no_fuse, "keep layers that could be one pass apart");
}

void check_batch(const ModelSpec& spec, std::int64_t batch) {
  if (batch == 1 && !spec.conv && spec.mlp.batch_norm)
    throw UserError("--batch 1: batch norm over one sample makes every number 0: take 2 or more, or norm=none");
}

Network open_network(const NetworkOptions& o, std::unique_ptr<Backend> device) {
  const ModelSpec spec = parse_model(o.model);
  check_batch(spec, o.batch);
  check_device_name(o.device);
  Network n;
  n.data = open_dataset(o.data);
  BatchOrder(n.data.train.count(), static_cast<std::size_t>(o.batch), o.seed);  // throws if they do not fit
  n.device = device ? std::move(device) : open_network_device(o.device, o.precision.tf32);
  n.available_at_first = n.device->available_bytes();
  n.model = build_model(spec, shape_of(n.data, o.batch, parse_dtype(o.precision.dtype)));
  n.parameters = std::make_unique<ParameterStore>(*n.device, n.model.graph);
  n.parameters->initialize(spec.initializer(), o.seed);
  n.feed = std::make_unique<Feed>(*n.device, n.data, n.data.train, Augmentation{}, FeedPlacement::streamed);
  return n;
}

std::unique_ptr<Executor> Network::make_executor(const NetworkOptions& o, Optimizer* optimizer,
                                                 ExecutorOptions executor) const {
  executor.memory_limit = o.memory_limit;
  return app::make_executor(model, shape_of(data, o.batch, parameters->dtype()), *parameters, optimizer, executor);
}

void Network::load_first_batch(const Executor& executor, std::uint64_t seed) const {
  const Tensor x = executor.input("x");
  BatchOrder order(feed->count(), static_cast<std::size_t>(x.shape()[0]), seed);
  feed->load(order.batch(0), x, executor.input("labels"));
}

std::optional<std::size_t> Network::taken_bytes() const {
  if (device->is_host()) return std::nullopt;
  return available_at_first - std::min(available_at_first, device->available_bytes());
}

void require_outputs(std::initializer_list<OutputFile> files) {
  for (const OutputFile* a = files.begin(); a != files.end(); ++a) {
    if (a->path.empty()) continue;
    for (const OutputFile* b = files.begin(); b != a; ++b)
      if (std::filesystem::path(a->path).lexically_normal() == std::filesystem::path(b->path).lexically_normal())
        throw UserError(fmt::format("{} and {} both name {}: one would overwrite the other", b->option, a->option,
                                    quote(a->path)));
    AtomicFile{a->path};
  }
}

}  // namespace gradflow::app
