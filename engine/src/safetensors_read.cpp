#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <nlohmann/json.hpp>
#include <unordered_set>

#include "gradflow/engine/file.h"
#include "gradflow/engine/safetensors.h"
#include "gradflow/engine/text.h"
#include "gradflow/kernels/error.h"

namespace gradflow {
namespace {

using nlohmann::json;

static_assert(std::endian::native == std::endian::little, "the format is little-endian, and so is this code");

constexpr std::uint64_t kMaxHeader = 100'000'000;  // the limit of the format's own reader
constexpr int kMaxDimensions = 64;

constexpr std::array kTypes = {StoredType::f64, StoredType::f32, StoredType::f16, StoredType::bf16,
                               StoredType::i64, StoredType::i32, StoredType::u64, StoredType::u8};

// What the JSON library alone would let pass: repeated keys (it keeps the last), and arrays and nesting
// that no header needs but that take many times their length in memory.
class HeaderGuard {
 public:
  // An exception, as that is the one way to stop the parser.
  struct Refused {
    std::string reason;
  };

  bool operator()(int depth, json::parse_event_t event, json& parsed) {
    using Event = json::parse_event_t;
    // Depth 0 is the header, 1 a tensor's entry, 2 its shape and offsets.
    if (depth == 0 && (event == Event::array_start || event == Event::value))
      throw Refused{"the header is not a JSON object"};
    if (event == Event::object_start) {
      if (depth >= 2) throw Refused{"the header is nested too deep"};
      keys_[static_cast<std::size_t>(depth)].clear();
    } else if (event == Event::array_start) {
      if (depth >= 3) throw Refused{"the header is nested too deep"};
      values_ = 0;
    } else if (event == Event::value) {
      // A value in an object counts from its key, so only lists can reach the limit.
      if (++values_ > kMaxDimensions) throw Refused{"a shape has more than 64 dimensions"};
    } else if (event == Event::key) {
      values_ = 0;
      const auto& key = parsed.get_ref<const std::string&>();
      if (!keys_.at(static_cast<std::size_t>(depth) - 1).insert(key).second)
        throw Refused{fmt::format("the header names {} twice", quote(key))};
    }
    return true;
  }

 private:
  std::array<std::unordered_set<std::string>, 2> keys_;
  int values_ = 0;
};

// False if the product does not fit.
bool product(std::span<const std::uint64_t> factors, std::uint64_t& result) {
  result = 1;
  for (std::uint64_t factor : factors)
    if (__builtin_mul_overflow(result, factor, &result)) return false;
  return true;
}

}  // namespace

std::size_t size_of(StoredType type) {
  switch (type) {
    case StoredType::f64:
    case StoredType::i64:
    case StoredType::u64: return 8;
    case StoredType::f32:
    case StoredType::i32: return 4;
    case StoredType::f16:
    case StoredType::bf16: return 2;
    case StoredType::u8: return 1;
  }
  throw InternalError("unknown stored type");
}

std::string_view name_of(StoredType type) {
  switch (type) {
    case StoredType::f64: return "F64";
    case StoredType::f32: return "F32";
    case StoredType::f16: return "F16";
    case StoredType::bf16: return "BF16";
    case StoredType::i64: return "I64";
    case StoredType::i32: return "I32";
    case StoredType::u64: return "U64";
    case StoredType::u8: return "U8";
  }
  throw InternalError("unknown stored type");
}

std::string shape_text(std::span<const std::uint64_t> shape) {
  return fmt::format("[{}]", fmt::join(shape, ", "));
}

SafetensorsFile::SafetensorsFile(const std::filesystem::path& path)
    : SafetensorsFile(read_file(path), path.string()) {}

SafetensorsFile::SafetensorsFile(std::string bytes, std::string source)
    : source_(std::move(source)), bytes_(std::make_unique<const std::string>(std::move(bytes))) {
  parse();
}

void SafetensorsFile::fail(std::string_view reason) const {
  throw UserError(fmt::format("cannot use safetensors file {}: {}", quote(source_, 400), reason));
}

void SafetensorsFile::fail(std::string_view tensor, std::string_view reason) const {
  fail(fmt::format("tensor {}: {}", quote(tensor), reason));
}

void SafetensorsFile::parse() {
  const std::string& bytes = *bytes_;
  std::uint64_t header_length = 0;
  if (bytes.size() < sizeof header_length)
    fail(fmt::format("truncated: {} bytes are too few for the header's length", bytes.size()));
  std::memcpy(&header_length, bytes.data(), sizeof header_length);
  if (header_length > bytes.size() - 8)
    fail(fmt::format("truncated or damaged: it promises a header of {} bytes, {} are there", header_length,
                     bytes.size() - 8));
  if (header_length > kMaxHeader)
    fail(fmt::format("a header of {} bytes is more than the {} allowed", header_length, kMaxHeader));
  const std::string_view text(bytes.data() + 8, header_length);
  if (!text.starts_with('{')) fail("the header does not begin with '{'");

  // The JSON library takes a zero byte for the end of its input and would not see what follows.
  if (text.find('\0') != std::string_view::npos) fail("the header is not valid JSON (zero byte)");

  json header;
  try {
    header = json::parse(text.begin(), text.end(), HeaderGuard());
  } catch (const HeaderGuard::Refused& refused) {
    fail(refused.reason);
  } catch (const json::exception& error) {
    const auto* at = dynamic_cast<const json::parse_error*>(&error);
    fail(fmt::format("the header is not valid JSON{}", at ? fmt::format(" (byte {})", at->byte) : ""));
  }

  const std::byte* data = reinterpret_cast<const std::byte*>(bytes.data()) + 8 + header_length;
  const std::uint64_t data_bytes = bytes.size() - 8 - header_length;
  struct Range {
    std::uint64_t begin, end;
    StoredTensor tensor;
  };
  std::vector<Range> ranges;
  for (const auto& [name, entry] : header.items()) {
    if (!entry.is_object()) fail(name, "its entry is not an object");
    if (name == "__metadata__") {
      for (const auto& [key, value] : entry.items()) {
        if (!value.is_string()) fail(fmt::format("the metadata {} is not a text", quote(key)));
        metadata_[key] = value.get<std::string>();
      }
      continue;
    }
    Range range{0, 0, {}};
    range.tensor.name = name;
    for (const auto& [key, value] : entry.items())
      if (key != "dtype" && key != "shape" && key != "data_offsets")
        fail(name, "unknown field " + quote(key));
    const auto field = [&](const char* key) -> const json& {
      const auto found = entry.find(key);
      if (found == entry.end()) fail(name, fmt::format("'{}' is missing", key));
      return *found;
    };
    const json& type = field("dtype");
    const auto known = std::find_if(kTypes.begin(), kTypes.end(), [&](StoredType t) {
      return type.is_string() && type.get_ref<const std::string&>() == name_of(t);
    });
    if (known == kTypes.end()) fail(name, fmt::format("unknown dtype {}", quote(type.dump(), 40)));
    range.tensor.type = *known;

    const auto whole_numbers = [&](const char* key) {
      const json& list = field(key);
      std::vector<std::uint64_t> numbers;
      if (!list.is_array()) fail(name, fmt::format("'{}' is not a list", key));
      for (const json& number : list) {
        if (!number.is_number_unsigned())
          fail(name, fmt::format("{} in '{}' is not a whole number from 0 to 2^64-1",
                                 quote(number.dump(), 40), key));
        numbers.push_back(number.get<std::uint64_t>());
      }
      return numbers;
    };
    range.tensor.shape = whole_numbers("shape");
    const std::vector<std::uint64_t> offsets = whole_numbers("data_offsets");
    if (offsets.size() != 2) fail(name, "'data_offsets' is not [begin, end]");
    range.begin = offsets[0];
    range.end = offsets[1];
    std::uint64_t count = 0, size = 0;
    if (!product(range.tensor.shape, count) || __builtin_mul_overflow(count, size_of(*known), &size))
      fail(name, fmt::format("the shape {} overflows", shape_text(range.tensor.shape)));
    if (range.begin > range.end || range.end > data_bytes)
      fail(name, fmt::format("offsets {} to {} lie outside the {} data bytes (truncated?)", range.begin,
                             range.end, data_bytes));
    if (range.end - range.begin != size)
      fail(name, fmt::format("shape {} of {} takes {} bytes, its offsets give it {}",
                             shape_text(range.tensor.shape), name_of(*known), size, range.end - range.begin));
    range.tensor.count = count;
    range.tensor.data = data + range.begin;
    ranges.push_back(std::move(range));
  }

  std::stable_sort(ranges.begin(), ranges.end(), [](const Range& a, const Range& b) {
    return std::pair(a.begin, a.end) < std::pair(b.begin, b.end);
  });
  std::uint64_t used = 0;
  for (const Range& range : ranges) {
    if (range.begin < used) fail(range.tensor.name, "its data overlaps with another tensor's");
    if (range.begin > used)
      fail(range.tensor.name, fmt::format("{} unused bytes before its data", range.begin - used));
    used = range.end;
  }
  if (used != data_bytes) fail(fmt::format("{} trailing bytes after the last tensor", data_bytes - used));

  tensors_.reserve(ranges.size());
  for (Range& range : ranges) {
    StoredTensor& tensor = tensors_.emplace_back(std::move(range.tensor));
    // Files of others may hold, say, f32 at an odd address.
    if (reinterpret_cast<std::uintptr_t>(tensor.data) % size_of(tensor.type) != 0) {
      auto copy = std::make_unique<std::uint64_t[]>(tensor.bytes() / 8 + 1);
      std::memcpy(copy.get(), tensor.data, tensor.bytes());
      tensor.data = reinterpret_cast<const std::byte*>(copy.get());
      realigned_.push_back(std::move(copy));
    }
  }
  for (std::size_t i = 0; i < tensors_.size(); ++i) index_.emplace(tensors_[i].name, i);
}

const StoredTensor* SafetensorsFile::find(std::string_view name) const {
  const auto found = index_.find(name);
  return found == index_.end() ? nullptr : &tensors_[found->second];
}

const StoredTensor& SafetensorsFile::at(std::string_view name) const {
  if (const StoredTensor* tensor = find(name)) return *tensor;
  std::vector<std::string> names;
  for (const StoredTensor& tensor : tensors_) names.push_back(tensor.name);
  const std::string_view nearest = nearest_name(name, names);
  fail(fmt::format("there is no tensor {}{}", quote(name),
                   nearest.empty() ? "" : fmt::format("; the nearest is {}", quote(nearest))));
}

const StoredTensor& SafetensorsFile::checked(std::string_view name, StoredType type,
                                             const std::span<const std::uint64_t>* shape) const {
  const StoredTensor& tensor = at(name);
  if (tensor.type != type)
    fail(name, fmt::format("it holds {}, expected {}", name_of(tensor.type), name_of(type)));
  if (shape != nullptr && !std::equal(shape->begin(), shape->end(), tensor.shape.begin(), tensor.shape.end()))
    fail(name, fmt::format("its shape is {}, expected {}", shape_text(tensor.shape), shape_text(*shape)));
  return tensor;
}

}  // namespace gradflow
