#include "gradflow/engine/checkpoint.h"

#include <fmt/format.h>

#include <charconv>
#include <cmath>
#include <cstring>
#include <string_view>
#include <unordered_set>
#include <utility>
#include <vector>

#include "gradflow/engine/text.h"
#include "gradflow/engine/version.h"
#include "gradflow/kernels/error.h"
#include "stored_shape.h"

namespace gradflow {
namespace {

using kernels::OptimizerKind;

constexpr const char* kLayout =
    "1";  // of the names and metadata; raised when an older gradflow could misread
constexpr const char* kMomentsPrefix = "optimizer/";

StoredType stored_type(DType type) {
  switch (type) {
    case DType::f32: return StoredType::f32;
    case DType::f64: return StoredType::f64;
    case DType::bf16: return StoredType::bf16;
    case DType::u8: return StoredType::u8;
    case DType::i32: return StoredType::i32;
  }
  throw InternalError("a tensor of an element type that no file has");
}

struct Named {
  std::string name;
  Tensor tensor;
};

// Every tensor of a checkpoint, in the order of the file: parameters, states, moments.
std::vector<Named> all_tensors(const ParameterStore& store, const Optimizer* optimizer) {
  std::vector<Named> all;
  for (std::size_t i = 0; i < store.parameters().size(); ++i)
    all.push_back({store.parameter_specs()[i].name, store.parameters()[i]});
  for (std::size_t i = 0; i < store.states().size(); ++i)
    all.push_back({store.state_specs()[i].name, store.states()[i]});
  if (!optimizer) return all;
  const auto add = [&](const char* moment, std::span<const Tensor> tensors) {
    for (std::size_t i = 0; i < tensors.size(); ++i)
      if (tensors[i])
        all.push_back(
            {fmt::format("{}{}/{}", kMomentsPrefix, moment, store.parameter_specs()[i].name), tensors[i]});
  };
  const OptimizerKind kind = optimizer->config().kind;
  const bool adaptive = kind == OptimizerKind::adam || kind == OptimizerKind::adamw;
  add(adaptive ? "first_moment" : "momentum", optimizer->first_moments());
  add("second_moment", optimizer->second_moments());
  return all;
}

// The tensor's bytes on the host: in place on the host backend, else a copy kept in `copy`.
const void* host_bytes(Backend& backend, const Tensor& tensor, std::vector<std::byte>& copy) {
  if (backend.is_host() || tensor.bytes() == 0) return tensor.data;
  copy.resize(tensor.bytes());
  backend.copy_out(copy.data(), tensor.data, tensor.bytes());
  return copy.data();
}

template <class T>
bool all_finite(const void* data, std::size_t count) {
  const T* x = static_cast<const T*>(data);
  for (std::size_t i = 0; i < count; ++i)
    if (!std::isfinite(x[i])) return false;
  return true;
}

bool all_finite_bf16(const void* data, std::size_t count) {  // an exponent of all ones is not finite
  const auto* bytes = static_cast<const std::byte*>(data);
  for (std::size_t i = 0; i < count; ++i) {
    std::uint16_t bits = 0;
    std::memcpy(&bits, bytes + 2 * i, 2);
    if ((bits & 0x7f80u) == 0x7f80u) return false;
  }
  return true;
}

bool all_finite(DType type, const void* data, std::size_t count) {
  switch (type) {
    case DType::f32: return all_finite<float>(data, count);
    case DType::f64: return all_finite<double>(data, count);
    case DType::bf16: return all_finite_bf16(data, count);
    default: return true;
  }
}

std::string_view kind_of(std::string_view optimizer) { return optimizer.substr(0, optimizer.find(':')); }

// Keys that belong to the checkpoint itself.
constexpr std::string_view kKeys[] = {"gradflow_checkpoint",
                                      "gradflow_version",
                                      "model",
                                      "data",
                                      "schedule",
                                      "optimizer",
                                      "step",
                                      "batch",
                                      "seed",
                                      "dtype"};

bool own_key(std::string_view key) {
  for (const std::string_view k : kKeys)
    if (k == key) return true;
  return false;
}

}  // namespace

std::string describe(const OptimizerConfig& c) {
  std::string text = fmt::format("{}:lr={}", name_of(c.kind), c.learning_rate);
  if (c.kind == OptimizerKind::adam || c.kind == OptimizerKind::adamw)
    text += fmt::format(",beta1={},beta2={},epsilon={}", c.beta1, c.beta2, c.epsilon);
  else
    text += fmt::format(",momentum={}", c.momentum);
  return text + fmt::format(",weight_decay={}", c.weight_decay);
}

void save_checkpoint(const std::filesystem::path& path, const ParameterStore& store,
                     const Optimizer* optimizer, const CheckpointInfo& info) {
  Metadata metadata = info.extra;
  const auto set = [&](std::string_view key, std::string value) {
    if (!metadata.emplace(key, std::move(value)).second)
      throw InternalError(fmt::format("checkpoint metadata '{}' is written by the checkpoint itself", key));
  };
  set("gradflow_checkpoint", kLayout);
  set("gradflow_version", fmt::format("{} ({})", version(), git_revision()));
  set("model", info.model);
  set("data", info.data);
  set("schedule", info.schedule);
  set("optimizer", optimizer ? describe(optimizer->config()) : "");
  set("step", std::to_string(info.step));
  set("batch", std::to_string(info.batch));
  set("seed", std::to_string(info.seed));
  set("dtype", std::string(name_of(store.dtype())));

  const std::vector<Named> tensors = all_tensors(store, optimizer);
  std::vector<std::vector<std::byte>> copies(tensors.size());
  std::vector<TensorToStore> to_store;
  for (std::size_t i = 0; i < tensors.size(); ++i)
    to_store.push_back({tensors[i].name, stored_type(tensors[i].tensor.dtype()),
                        stored_shape(tensors[i].tensor.shape()),
                        host_bytes(store.backend(), tensors[i].tensor, copies[i])});
  write_safetensors(path, to_store, metadata);
}

std::optional<std::string> find_nonfinite(const ParameterStore& store, const Optimizer* optimizer) {
  std::vector<std::byte> copy;
  for (const Named& t : all_tensors(store, optimizer))
    if (!all_finite(t.tensor.dtype(), host_bytes(store.backend(), t.tensor, copy), t.tensor.elements()))
      return t.name;
  return std::nullopt;
}

Checkpoint::Checkpoint(const std::filesystem::path& path) : source_(quote(path.string(), 400)), file_(path) {
  const Metadata& metadata = file_.metadata();
  const auto text = [&](const char* key) -> const std::string& {
    const auto found = metadata.find(key);
    if (found == metadata.end())
      throw UserError(fmt::format("{} is no gradflow checkpoint: its metadata lack '{}'", source_, key));
    return found->second;
  };
  const auto number = [&]<class T>(const char* key, T& value) {
    const std::string& t = text(key);
    const auto [end, error] = std::from_chars(t.data(), t.data() + t.size(), value);
    if (error != std::errc() || end != t.data() + t.size() || value < T{0})
      throw UserError(fmt::format("checkpoint {} is damaged: {} {} is not a whole number of 0 or more",
                                  source_, key, quote(t)));
  };
  if (text("gradflow_checkpoint") != kLayout)
    throw UserError(fmt::format(
        "checkpoint {} has layout {}, written by gradflow {}; this is {}, which reads layout {}", source_,
        quote(text("gradflow_checkpoint")), quote(text("gradflow_version")), gradflow::version(), kLayout));
  version_ = text("gradflow_version");
  info_.model = text("model");
  info_.data = text("data");
  info_.schedule = text("schedule");
  optimizer_ = text("optimizer");
  dtype_ = text("dtype");
  number("step", info_.step);
  number("batch", info_.batch);
  number("seed", info_.seed);
  for (const auto& [key, value] : metadata)
    if (!own_key(key)) info_.extra.emplace(key, value);
}

void Checkpoint::restore(ParameterStore& store, Optimizer* optimizer) const {
  const auto differ = [&](const std::string& what) {
    throw UserError(fmt::format("checkpoint {} is of another network: {} (it was trained as {})", source_,
                                what, quote(info_.model)));
  };
  if (optimizer && &optimizer->parameters() != &store)
    throw InternalError("restore: the optimizer has other parameters");
  if (optimizer && kind_of(optimizer_) != name_of(optimizer->config().kind))
    throw UserError(fmt::format("checkpoint {} was trained with optimizer {}, not {}", source_,
                                optimizer_.empty() ? "none" : quote(optimizer_),
                                quote(describe(optimizer->config()))));

  // Everything is checked before anything is copied.
  const std::vector<Named> wanted = all_tensors(store, optimizer);
  std::vector<const StoredTensor*> found;
  std::unordered_set<std::string_view> names;
  for (const Named& t : wanted) {
    const StoredTensor* stored = file_.find(t.name);
    const std::vector<std::uint64_t> shape = stored_shape(t.tensor.shape());
    const bool moment = t.name.starts_with(kMomentsPrefix);
    if (!stored && moment)
      throw UserError(fmt::format("checkpoint {} lacks '{}': it was trained with optimizer {}, not {}",
                                  source_, t.name, quote(optimizer_), quote(describe(optimizer->config()))));
    if (!stored) differ(fmt::format("it lacks '{}', which is {} here", t.name, shape_text(shape)));
    if (stored->shape != shape)
      differ(fmt::format("'{}' is {} there, {} here", t.name, shape_text(stored->shape), shape_text(shape)));
    if (stored->type != stored_type(t.tensor.dtype()))
      differ(fmt::format("'{}' is {} there, {} here", t.name, name_of(stored->type),
                         name_of(stored_type(t.tensor.dtype()))));
    found.push_back(stored);
    names.insert(t.name);
  }
  for (const StoredTensor& stored : file_.tensors()) {
    if (names.contains(stored.name)) continue;
    const bool moment = stored.name.starts_with(kMomentsPrefix);
    if (moment && !optimizer) continue;
    if (moment)
      throw UserError(fmt::format("checkpoint {} holds '{}': it was trained with optimizer {}, not {}",
                                  source_, stored.name, quote(optimizer_),
                                  quote(describe(optimizer->config()))));
    differ(fmt::format("it holds '{}' {}, which does not exist here", stored.name, shape_text(stored.shape)));
  }

  for (std::size_t i = 0; i < wanted.size(); ++i)
    if (found[i]->bytes() > 0)
      store.backend().copy_in(wanted[i].tensor.data, found[i]->data, found[i]->bytes());
  store.refresh_copies();
}

void Snapshot::take(const ParameterStore& store, const Optimizer* optimizer) {
  const std::vector<Named> all = all_tensors(store, optimizer);
  tensors_.resize(all.size());
  for (std::size_t i = 0; i < all.size(); ++i) {
    tensors_[i].resize(all[i].tensor.bytes());
    if (!tensors_[i].empty()) store.backend().copy_out(tensors_[i].data(), all[i].tensor.data, tensors_[i].size());
  }
}

void Snapshot::restore(ParameterStore& store, Optimizer* optimizer) const {
  const std::vector<Named> all = all_tensors(store, optimizer);
  if (tensors_.empty() || tensors_.size() != all.size()) throw InternalError("a snapshot of other tensors, or of none");
  for (std::size_t i = 0; i < all.size(); ++i)
    if (!tensors_[i].empty()) store.backend().copy_in(all[i].tensor.data, tensors_[i].data(), tensors_[i].size());
  store.refresh_copies();
}

}  // namespace gradflow
