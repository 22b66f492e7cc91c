// What the tests of `gradflow train` share: a small run, its options, and its files read back.
#pragma once

#include <functional>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <vector>

#include "apps/train/train.h"
#include "engine/temp_dir.h"
#include "gradflow/engine/file.h"
#include "gradflow/engine/safetensors.h"

namespace gradflow::app {

// 16 steps an epoch; the held-out split is no multiple of the evaluation's batch.
inline constexpr const char* kData = "synthetic:n=512,test=601,features=12,classes=3";
inline constexpr const char* kModel = "mlp:depth=4,width=16,act=tanh,skip=on,norm=bn,init=xavier";

inline TrainOptions small_run(const std::filesystem::path& out, std::int64_t steps) {
  TrainOptions o;
  o.model = kModel;
  o.data = kData;
  o.steps = steps;
  o.optimizer = "sgd:momentum=0.9,weight_decay=0.001";
  o.learning_rate = 0.05;
  o.batch = 32;
  o.eval_every = 5;
  o.checkpoint_every = 4;
  o.device = "cpu";
  o.out = out.string();
  return o;
}

inline TrainOptions resume(const std::filesystem::path& out) {
  TrainOptions o;
  o.device = "cpu";
  o.out = out.string();
  o.resume = true;
  return o;
}

struct TrainResult {
  int code = -1;
  std::string out, errors;
};

inline TrainResult train(const TrainOptions& options) {
  std::ostringstream out, errors;
  TrainResult result;
  result.code = run_train(options, out, errors);
  result.out = out.str();
  result.errors = errors.str();
  return result;
}

// The same tensors with other metadata.
inline void edit_metadata(const std::filesystem::path& path, const std::function<void(Metadata&)>& edit) {
  const SafetensorsFile file(path);
  std::vector<TensorToStore> tensors;
  for (const StoredTensor& t : file.tensors()) tensors.push_back({t.name, t.type, t.shape, t.data});
  Metadata metadata = file.metadata();
  edit(metadata);
  write_safetensors(path, tensors, metadata);
}

inline std::vector<nlohmann::json> log_of(const std::filesystem::path& out) {
  std::vector<nlohmann::json> lines;
  std::istringstream text(read_file(out / "log.jsonl"));
  for (std::string line; std::getline(text, line);) lines.push_back(nlohmann::json::parse(line));
  return lines;
}

inline nlohmann::json summary_of(const std::filesystem::path& out) {
  return nlohmann::json::parse(read_file(out / "summary.json"));
}

}  // namespace gradflow::app
