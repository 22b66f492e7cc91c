// A network at initialization, on a device, with a data set: what `measure` and `bench` start from.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <memory>
#include <optional>
#include <string>

#include "apps/common/make_executor.h"
#include "apps/common/precision.h"
#include "gradflow/engine/dataset.h"
#include "gradflow/engine/executor.h"
#include "gradflow/engine/feed.h"
#include "gradflow/layers/models.h"

namespace CLI {
class App;
}

namespace gradflow::app {

struct NetworkOptions {
  std::string model, data = "fashion-mnist", device = "auto";
  std::int64_t batch = 128;
  std::uint64_t seed = 1;
  PrecisionOptions precision;
  std::uint64_t memory_limit = kNoMemoryLimit;
};

// What --help says of --data.
inline constexpr const char* kDataHelp =
    "fashion-mnist, mnist:DIR, idx:DIR, cifar10:DIR, cifar100:DIR, cifar10-subset:DIR,\ncifar100-subset:DIR (of any length) or "
    "synthetic[:n=8192,test=2048,features=784,\nclasses=10,noise=1,seed=1], with height=, width=, channels= for images;\n"
    "half:SPEC: the same in half the height and width";

void add_network_options(CLI::App& command, NetworkOptions& options);

// An option that names a file to write; "-" is standard output, as /dev/stdout is, and "./-" a file of that name.
void add_output_file(CLI::App& command, const std::string& option, std::string& path, const std::string& help);

// --no-fuse
void add_no_fuse(CLI::App& command, bool& no_fuse);

// UserError where batch norm would have one number a unit, which becomes 0 whatever it was.
void check_batch(const ModelSpec& spec, std::int64_t batch);

struct Network {  // members in the order in which they depend on each other
  std::unique_ptr<Backend> device;
  std::size_t available_at_first = 0;  // what the device could give before anything below was made
  Dataset data;
  Model model;
  std::unique_ptr<ParameterStore> parameters;  // initialized from the model's initializer and the seed
  std::unique_ptr<Feed> feed;                  // the training images, of which one batch is wanted

  // A training executor at the batch of the options.
  std::unique_ptr<Executor> make_executor(const NetworkOptions& options, Optimizer* optimizer,
                                          ExecutorOptions executor) const;
  // Puts the first batch of the first epoch, in the order that `seed` gives, into the executor's inputs.
  void load_first_batch(const Executor& executor, std::uint64_t seed) const;
  // What the device has given away since it was opened, to this network and all else that is there now: arrays, what the
  // vendors' libraries took for themselves, code. Nothing on the host, whose memory is everyone's.
  std::optional<std::size_t> taken_bytes() const;
};

// UserError for a specification, data set, batch or device that cannot be had; the cheap checks come first.
// `device`: null: the one the options name.
Network open_network(const NetworkOptions& options, std::unique_ptr<Backend> device = nullptr);

struct OutputFile {
  const char* option;
  const std::string& path;  // empty: not asked for
};

// Before the work, opens and removes each file's partial: UserError where one cannot be written, or where two are the same.
void require_outputs(std::initializer_list<OutputFile> files);

}  // namespace gradflow::app
