// Checkpoints: everything a training run needs to go on, in one safetensors file.
//
//   save_checkpoint("out/last.safetensors", parameters, &optimizer, info);
//   const Checkpoint saved("out/last.safetensors");
//   saved.restore(parameters, &optimizer);          // then continue with step saved.info().step + 1
//
// Of a bf16 network the f32 parameters are kept, from which its bf16 copies follow.
//
// Tensors bear the names of the network:
//   block07.linear.weight, block07.norm.running_mean           parameters and states
//   optimizer/momentum/block07.linear.weight                   sgd and nesterov, if momentum is not 0
//   optimizer/first_moment/..., optimizer/second_moment/...    adam and adamw
// The file's metadata holds the rest as text. Random numbers and the order of the data are functions of
// (seed, step), so the step's number is their position: nothing else has to be kept.
//
// A file is written whole or not at all; whoever is killed meanwhile leaves the one before.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "gradflow/engine/optimizer.h"
#include "gradflow/engine/parameters.h"
#include "gradflow/engine/safetensors.h"

namespace gradflow {

struct CheckpointInfo {
  std::string model, data, schedule;  // the texts they were made from
  std::int64_t step = 0;              // finished steps
  std::int64_t batch = 0;
  std::uint64_t seed = 0;
  Metadata extra;  // what else the caller wants to find again; keys other than the ones written here
};

// "sgd:lr=0.1,momentum=0.9,weight_decay=0.0001": every number that decides the update, shortest form that
// reads back to the same bits.
std::string describe(const OptimizerConfig& config);

// The optimizer may be null: parameters alone. UserError if the file cannot be written.
void save_checkpoint(const std::filesystem::path& path, const ParameterStore& parameters,
                     const Optimizer* optimizer, const CheckpointInfo& info);

// Name of the first tensor that would be saved and holds a NaN or an infinity.
std::optional<std::string> find_nonfinite(const ParameterStore& parameters, const Optimizer* optimizer);

// A checkpoint read into memory. UserError, one line, if the file is damaged or no gradflow checkpoint.
class Checkpoint {
 public:
  explicit Checkpoint(const std::filesystem::path& path);

  const std::string& source() const noexcept { return source_; }  // the path in quotes, for messages
  const CheckpointInfo& info() const noexcept { return info_; }
  const std::string& optimizer() const noexcept {
    return optimizer_;
  }                                                                 // as describe() wrote it; may be empty
  const std::string& dtype() const noexcept { return dtype_; }      // of the network: a bf16 one's tensors are f32
  const std::string& version() const noexcept { return version_; }  // of the gradflow that wrote it

  // Copies parameters, states and, unless `optimizer` is null, its moments. Names, shapes and element
  // types must be exactly those of the network, and the optimizer of the same kind: otherwise UserError
  // naming the first difference, and nothing is changed.
  void restore(ParameterStore& parameters, Optimizer* optimizer) const;

 private:
  std::string source_;  // quoted path
  SafetensorsFile file_;
  CheckpointInfo info_;
  std::string optimizer_, dtype_, version_;
};

// What a checkpoint holds, in memory: to go back a few steps and look closer.
class Snapshot {
 public:
  void take(const ParameterStore& parameters, const Optimizer* optimizer);
  // To where it was taken: the same store and optimizer. InternalError if nothing was taken.
  void restore(ParameterStore& parameters, Optimizer* optimizer) const;

 private:
  std::vector<std::vector<std::byte>> tensors_;
};

}  // namespace gradflow
