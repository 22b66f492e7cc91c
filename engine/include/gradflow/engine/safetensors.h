// Named tensors in a file that PyTorch, NumPy and others read: the safetensors format.
//
//   u64 (little-endian): length of the header | header: JSON | data
//   {"__metadata__": {"key": "text"}, "name": {"dtype": "F32", "shape": [2,3], "data_offsets": [0,24]}}
//
// Offsets count from the end of the header; the tensors fill the data without overlap or hole.
// The format: https://github.com/huggingface/safetensors#format.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace gradflow {

enum class StoredType : std::uint8_t { f64, f32, f16, bf16, i64, i32, u64, u8 };

std::size_t size_of(StoredType type);
std::string_view name_of(StoredType type);  // as in the file: "F32"

// How elements in memory are called in a file.
template <class T>
struct StoredTypeOf;
template <>
struct StoredTypeOf<double> {
  static constexpr StoredType value = StoredType::f64;
};
template <>
struct StoredTypeOf<float> {
  static constexpr StoredType value = StoredType::f32;
};
template <>
struct StoredTypeOf<std::int64_t> {
  static constexpr StoredType value = StoredType::i64;
};
template <>
struct StoredTypeOf<std::int32_t> {
  static constexpr StoredType value = StoredType::i32;
};
template <>
struct StoredTypeOf<std::uint64_t> {
  static constexpr StoredType value = StoredType::u64;
};
template <>
struct StoredTypeOf<std::uint8_t> {
  static constexpr StoredType value = StoredType::u8;
};

using Metadata = std::map<std::string, std::string>;

// A contiguous tensor on the host; the data is not owned and may be null if the tensor is empty.
struct TensorToStore {
  std::string name;
  StoredType type = StoredType::f32;
  std::vector<std::uint64_t> shape;  // empty: a scalar
  const void* data = nullptr;
};

// Writes the file as a whole or not at all (see file.h). The data begins at a multiple of 8 bytes, and
// tensors of wide elements come first, so every tensor is aligned to its element. UserError if the file
// cannot be written; InternalError for names that are repeated, reserved or not UTF-8.
void write_safetensors(const std::filesystem::path& path, std::span<const TensorToStore> tensors,
                       const Metadata& metadata = {});

struct StoredTensor {
  std::string name;
  StoredType type = StoredType::f32;
  std::vector<std::uint64_t> shape;
  std::size_t count = 0;            // product of the shape
  const std::byte* data = nullptr;  // aligned to the element
  std::size_t bytes() const { return count * size_of(type); }
};

// A file read into memory, and checked wholly before anything is handed out: a truncated or trailing
// file, a header beyond the file or 100 MB, malformed JSON or UTF-8, repeated names, unknown types,
// shapes that overflow, offsets that overlap, leave holes, lie outside or do not fit the shape: each is
// a UserError of one line that names the file and the tensor. Pointers and spans live as long as it.
class SafetensorsFile {
 public:
  explicit SafetensorsFile(const std::filesystem::path& path);
  // From bytes already in memory; `source` is what messages call them.
  SafetensorsFile(std::string bytes, std::string source);

  const Metadata& metadata() const { return metadata_; }
  const std::vector<StoredTensor>& tensors() const { return tensors_; }  // in the order of their data

  const StoredTensor* find(std::string_view name) const;  // null if absent
  const StoredTensor& at(std::string_view name) const;    // UserError with the nearest name if absent

  // The tensor's elements; UserError if it is absent, or of another type or shape.
  template <class T>
  std::span<const T> values(std::string_view name, std::span<const std::uint64_t> shape) const {
    const StoredTensor& tensor = checked(name, StoredTypeOf<T>::value, &shape);
    return {reinterpret_cast<const T*>(tensor.data), tensor.count};
  }
  template <class T>
  std::span<const T> values(std::string_view name) const {
    const StoredTensor& tensor = checked(name, StoredTypeOf<T>::value, nullptr);
    return {reinterpret_cast<const T*>(tensor.data), tensor.count};
  }

 private:
  void parse();
  const StoredTensor& checked(std::string_view name, StoredType type,
                              const std::span<const std::uint64_t>* shape) const;
  [[noreturn]] void fail(std::string_view reason) const;
  [[noreturn]] void fail(std::string_view tensor, std::string_view reason) const;

  std::string source_;
  std::unique_ptr<const std::string> bytes_;
  std::vector<std::unique_ptr<std::uint64_t[]>> realigned_;  // copies of tensors that lay misaligned
  Metadata metadata_;
  std::vector<StoredTensor> tensors_;
  std::unordered_map<std::string_view, std::size_t> index_;  // of the names in tensors_
};

// "[2, 3]"
std::string shape_text(std::span<const std::uint64_t> shape);

}  // namespace gradflow
