#include "gradflow/engine/weights.h"

#include <fmt/format.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <set>
#include <vector>

#include "gradflow/engine/safetensors.h"
#include "gradflow/engine/text.h"
#include "gradflow/kernels/bf16.h"
#include "gradflow/kernels/error.h"
#include "stored_shape.h"

namespace gradflow {
namespace {

struct Wanted {
  std::string name;
  Tensor tensor;
  bool optional;
  bool image_weights;  // of a convolution
};

// IEEE half precision: 1 sign, 5 exponent, 10 fraction bits.
double half_to_double(std::uint16_t bits) {
  const int exponent = bits >> 10 & 31, fraction = bits & 1023;
  double value = exponent == 31  ? (fraction ? std::nan("") : INFINITY)
                 : exponent == 0 ? std::ldexp(fraction, -24)
                                 : std::ldexp(1024 + fraction, exponent - 25);
  return bits & 0x8000 ? -value : value;
}

template <class T>
T read_as(const std::byte* data, std::size_t i) {
  T value;
  std::memcpy(&value, data + i * sizeof(T), sizeof(T));
  return value;
}

double element(const StoredTensor& t, std::size_t i) {
  switch (t.type) {
    case StoredType::f64: return read_as<double>(t.data, i);
    case StoredType::f32: return static_cast<double>(read_as<float>(t.data, i));
    case StoredType::bf16: return static_cast<double>(to_float(read_as<Bf16>(t.data, i)));
    case StoredType::f16: return half_to_double(read_as<std::uint16_t>(t.data, i));
    default: throw InternalError("a weight that is no floating-point number");
  }
}

bool is_floating(StoredType type) {
  return type == StoredType::f64 || type == StoredType::f32 || type == StoredType::f16 || type == StoredType::bf16;
}

// What a file of gradflow holds besides weights.
bool beside_weights(std::string_view name) {
  for (const std::string_view prefix : {"optimizer/", "grad/", "activation/"})
    if (name.starts_with(prefix)) return true;
  return name == "x" || name == "labels";
}

// "'a' [3], 'b' [4] and 7 more"
class Listed {
 public:
  void add(std::string item) {
    if (++count_ <= kShown) shown_.push_back(std::move(item));
  }
  bool empty() const { return count_ == 0; }
  std::string text() const {
    return joined(shown_) + (count_ > kShown ? fmt::format(" and {} more", count_ - kShown) : "");
  }

 private:
  static constexpr std::size_t kShown = 3;
  std::vector<std::string> shown_;
  std::size_t count_ = 0;
};

class Loader {
 public:
  Loader(const std::filesystem::path& path, ParameterStore& store)
      : store_(store), source_(quote(path.string(), 400)), file_(path) {
    ours_ = file_.metadata().contains("gradflow") || file_.metadata().contains("gradflow_checkpoint");
    for (std::size_t i = 0; i < store.parameters().size(); ++i) {
      const ParameterSpec& p = store.parameter_specs()[i];
      wanted_.push_back({p.name, store.parameters()[i], false, p.shape.rank() == 4 && p.role == ParameterRole::weight});
    }
    for (std::size_t i = 0; i < store.states().size(); ++i)
      wanted_.push_back({store.state_specs()[i].name, store.states()[i], store.state_specs()[i].control, false});
  }

  std::size_t load() {
    check_names_and_shapes();
    std::vector<std::vector<std::byte>> converted;
    for (std::size_t i = 0; i < wanted_.size(); ++i) converted.push_back(found_[i] ? convert(wanted_[i], *found_[i]) : std::vector<std::byte>());
    std::size_t count = 0;
    for (std::size_t i = 0; i < wanted_.size(); ++i) {
      if (!found_[i]) continue;
      ++count;
      if (!converted[i].empty()) store_.backend().copy_in(wanted_[i].tensor.data, converted[i].data(), converted[i].size());
    }
    store_.refresh_copies();
    return count;
  }

 private:
  ParameterStore& store_;
  std::string source_;
  SafetensorsFile file_;
  bool ours_ = false;
  std::vector<Wanted> wanted_;
  std::vector<const StoredTensor*> found_;  // null: optional, and not there

  // As the file must have it.
  std::vector<std::uint64_t> shape_in_file(const Wanted& w) const {
    std::vector<std::uint64_t> s = stored_shape(w.tensor.shape());
    if (w.image_weights && !ours_) s = {s[0], s[3], s[1], s[2]};
    return s;
  }

  void check_names_and_shapes() {
    Listed missing, superfluous, misshaped, mistyped;
    std::set<std::string_view> names;
    for (const Wanted& w : wanted_) {
      const StoredTensor* t = file_.find(w.name);
      const std::vector<std::uint64_t> shape = shape_in_file(w);
      found_.push_back(t);
      names.insert(w.name);
      if (!t) {
        if (!w.optional) missing.add(fmt::format("'{}' {}", w.name, shape_text(shape)));
      } else if (t->shape != shape) {
        misshaped.add(fmt::format("'{}' is {} there and {} here", w.name, shape_text(t->shape), shape_text(shape)));
      } else if (!is_floating(t->type)) {
        mistyped.add(fmt::format("'{}' is {}", w.name, name_of(t->type)));
      }
    }
    for (const StoredTensor& t : file_.tensors()) {
      const bool passed_over = ours_ ? beside_weights(t.name) || t.name.ends_with(".gates")
                                     : t.name.ends_with("num_batches_tracked");
      if (!names.contains(t.name) && !passed_over) superfluous.add(fmt::format("'{}' {}", t.name, shape_text(t.shape)));
    }
    std::vector<std::string> faults;
    if (!missing.empty()) faults.push_back("it lacks " + missing.text());
    if (!superfluous.empty()) faults.push_back("it holds " + superfluous.text() + ", which the network has not");
    if (!misshaped.empty()) faults.push_back(misshaped.text());
    if (!mistyped.empty()) faults.push_back(mistyped.text() + ", not F64, F32, F16 or BF16");
    if (!faults.empty())
      throw UserError(fmt::format("the weights in {} do not fit the network: {}", source_, joined(faults, "; ")));
  }

  template <class T>
  std::vector<std::byte> convert_to(const Wanted& w, const StoredTensor& from) const {
    std::vector<std::byte> bytes(from.count * sizeof(T));
    auto* to = reinterpret_cast<T*>(bytes.data());
    const auto put = [&](std::size_t at, std::size_t i) {
      const double value = element(from, i);
      to[at] = static_cast<T>(value);
      if (!std::isfinite(to[at]))
        throw UserError(fmt::format("the weights in {} cannot be used: '{}' holds {} at element {}", source_, w.name, value, i));
    };
    if (w.image_weights && !ours_) {  // [o][c][h][w] to [o][h][w][c]
      const std::uint64_t outputs = from.shape[0], channels = from.shape[1], pixels = from.shape[2] * from.shape[3];
      for (std::uint64_t o = 0; o < outputs; ++o)
        for (std::uint64_t c = 0; c < channels; ++c)
          for (std::uint64_t p = 0; p < pixels; ++p) put((o * pixels + p) * channels + c, (o * channels + c) * pixels + p);
    } else {
      for (std::size_t i = 0; i < from.count; ++i) put(i, i);
    }
    return bytes;
  }

  std::vector<std::byte> convert(const Wanted& w, const StoredTensor& from) const {
    switch (w.tensor.dtype()) {
      case DType::f32: return convert_to<float>(w, from);
      case DType::f64: return convert_to<double>(w, from);
      default: throw InternalError(fmt::format("'{}' is stored in {}", w.name, name_of(w.tensor.dtype())));
    }
  }
};

}  // namespace

std::size_t load_weights(const std::filesystem::path& path, ParameterStore& parameters) {
  return Loader(path, parameters).load();
}

}  // namespace gradflow
