#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <unordered_set>

#include "gradflow/engine/file.h"
#include "gradflow/engine/safetensors.h"
#include "gradflow/engine/text.h"
#include "gradflow/kernels/error.h"

namespace gradflow {
namespace {

using nlohmann::json;

std::string json_name(const std::string& name) {
  try {
    return json(name).dump();
  } catch (const json::exception&) {
    throw InternalError(fmt::format("the tensor name {} is not UTF-8", quote(name)));
  }
}

// Metadata may quote what a user typed, of any encoding: what is not UTF-8 is replaced.
std::string json_text(const std::string& text) {
  return json(text).dump(-1, ' ', false, json::error_handler_t::replace);
}

std::uint64_t bytes_of(const TensorToStore& tensor) {
  std::uint64_t bytes = size_of(tensor.type);
  for (std::uint64_t length : tensor.shape)
    if (__builtin_mul_overflow(bytes, length, &bytes))
      throw InternalError(
          fmt::format("the shape {} of tensor {} overflows", shape_text(tensor.shape), quote(tensor.name)));
  if (bytes != 0 && tensor.data == nullptr)
    throw InternalError(fmt::format("tensor {} has no data", quote(tensor.name)));
  return bytes;
}

}  // namespace

void write_safetensors(const std::filesystem::path& path, std::span<const TensorToStore> tensors,
                       const Metadata& metadata) {
  std::vector<const TensorToStore*> order;
  std::unordered_set<std::string_view> names = {"__metadata__"};
  for (const TensorToStore& tensor : tensors) {
    if (!names.insert(tensor.name).second)
      throw InternalError(fmt::format("the tensor name {} is repeated or reserved", quote(tensor.name)));
    order.push_back(&tensor);
  }
  std::stable_sort(order.begin(), order.end(), [](const TensorToStore* a, const TensorToStore* b) {
    return size_of(a->type) > size_of(b->type);
  });

  std::string header = "{";
  const auto separate = [&] {
    if (header.size() > 1) header += ',';
  };
  if (!metadata.empty()) {
    header += "\"__metadata__\":{";
    for (auto entry = metadata.begin(); entry != metadata.end(); ++entry)
      header += fmt::format("{}{}:{}", entry == metadata.begin() ? "" : ",", json_text(entry->first),
                            json_text(entry->second));
    header += '}';
  }
  std::uint64_t offset = 0;
  for (const TensorToStore* tensor : order) {
    const std::uint64_t end = offset + bytes_of(*tensor);
    separate();
    header +=
        fmt::format(R"({}:{{"dtype":"{}","shape":[{}],"data_offsets":[{},{}]}})", json_name(tensor->name),
                    name_of(tensor->type), fmt::join(tensor->shape, ","), offset, end);
    offset = end;
  }
  header += '}';
  header.resize((header.size() + 7) / 8 * 8, ' ');

  AtomicFile file(path);
  const std::uint64_t length = header.size();
  file.write(&length, sizeof length);
  file.write(header);
  for (const TensorToStore* tensor : order) file.write(tensor->data, bytes_of(*tensor));
  file.commit();
}

}  // namespace gradflow
