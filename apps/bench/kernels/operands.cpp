#include "apps/bench/kernels/operands.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <numeric>
#include <random>

namespace gradflow::app {
namespace {

constexpr std::size_t kAlignment = 256;

std::size_t room(const Operand& o) { return (o.bytes() + kAlignment - 1) / kAlignment * kAlignment; }

// Appends a number in the storage of `dtype`.
void append(std::vector<std::byte>& to, DType dtype, float value) {
  std::byte bytes[8];
  if (dtype == DType::f64) {
    const double wide = value;
    std::memcpy(bytes, &wide, sizeof wide);
  } else if (dtype == DType::bf16) {  // the upper half of an f32; the last bit does not matter here
    const auto half = static_cast<std::uint16_t>(std::bit_cast<std::uint32_t>(value) >> 16);
    std::memcpy(bytes, &half, sizeof half);
  } else {
    std::memcpy(bytes, &value, sizeof value);
  }
  to.insert(to.end(), bytes, bytes + size_of(dtype));
}

// Of a block of numbers. No power of two, so that operands of such lengths do not hold the same numbers.
constexpr std::size_t kBlock = 1000003;

std::vector<float> normal_numbers(std::size_t n) {
  std::mt19937 generator(1);
  std::normal_distribution<float> normal;
  std::vector<float> numbers(n);
  for (float& x : numbers) x = normal(generator);
  return numbers;
}

std::vector<std::byte> some_numbers(DType dtype, std::size_t n, bool positive) {
  std::vector<std::byte> bytes;
  bytes.reserve(n * size_of(dtype));
  for (const float x : normal_numbers(n)) append(bytes, dtype, positive ? x * x : x);
  return bytes;
}

template <class T>
std::vector<std::byte> bytes_of(const T* values, std::size_t n) {
  std::vector<std::byte> bytes(n * sizeof(T));
  if (n) std::memcpy(bytes.data(), values, bytes.size());
  return bytes;
}

// What every copy of an operand begins with; empty for those that the pool already suits, and for zeros.
std::vector<std::byte> image(const Operand& o) {
  std::mt19937 generator(2);
  switch (o.content) {
    case Content::normal:
    case Content::bytes:
    case Content::zero: return {};
    case Content::positive: return some_numbers(o.dtype, std::min<std::size_t>(o.elements, 1 << 20), true);
    case Content::labels: {
      std::vector<std::int32_t> labels(o.elements);
      for (auto& label : labels)
        label = static_cast<std::int32_t>(generator() % static_cast<unsigned>(o.limit));
      return bytes_of(labels.data(), labels.size());
    }
    case Content::rows: {
      std::vector<std::int32_t> rows(o.elements);
      std::iota(rows.begin(), rows.end(), 0);
      std::shuffle(rows.begin(), rows.end(), generator);
      return bytes_of(rows.data(), rows.size());
    }
    case Content::gates: {
      const kernels::Gates gates;
      return bytes_of(&gates, 1);
    }
    case Content::scalars: {
      const kernels::OptimizerScalars scalars{.learning_rate = 1e-6f,
                                              .weight_decay = 1e-4f,
                                              .momentum = 0.9f,
                                              .beta1 = 0.9f,
                                              .beta2 = 0.999f,
                                              .epsilon = 1e-8f,
                                              .bias_correction1 = 0.5f,
                                              .bias_correction2 = 0.5f};
      return bytes_of(&scalars, 1);
    }
  }
  return {};
}

}  // namespace

std::vector<float> operand_numbers() { return normal_numbers(kBlock); }

std::size_t OperandPool::set_bytes(const Work& work) {
  std::size_t bytes = 0;
  for (const Operand& o : work.operands) bytes += room(o);
  return bytes;
}

// A block of numbers from the host, doubled on the device. Earlier launches left their results there: it is filled anew.
void OperandPool::fill_with_numbers(DType dtype, std::size_t bytes) {
  std::vector<std::byte>& block = blocks_[dtype];
  if (block.empty()) block = some_numbers(dtype, kBlock, false);
  std::size_t done = std::min(block.size(), bytes);
  backend_.copy_in(memory_.data(), block.data(), done);
  while (done < bytes) {
    const std::size_t more = std::min(done, bytes - done);
    backend_.copy(memory_.at(done), memory_.data(), more);
    done += more;
  }
}

std::vector<std::vector<void*>> OperandPool::fill(const Work& work, std::size_t sets) {
  const std::size_t needed = set_bytes(work) * sets;
  if (needed > memory_.bytes()) {
    memory_ = DeviceMemory();  // frees first: there may not be room for both
    memory_ = DeviceMemory(backend_, needed);
  }
  DType dtype = DType::f32;  // of the first operand that holds numbers; results may be of another
  const auto first = std::ranges::find(work.operands, Content::normal, &Operand::content);
  if (first != work.operands.end()) dtype = first->dtype;
  fill_with_numbers(dtype, needed);

  std::vector<std::vector<void*>> all(sets, std::vector<void*>(work.operands.size(), nullptr));
  std::size_t offset = 0;
  for (std::size_t i = 0; i < work.operands.size(); ++i) {
    const Operand& o = work.operands[i];
    if (o.elements == 0) continue;
    const std::vector<std::byte> bytes = image(o);
    for (std::size_t set = 0; set < sets; ++set) {
      void* const at = all[set][i] = memory_.at(offset + set * set_bytes(work));
      if (o.content == Content::zero) backend_.zero(at, o.bytes());
      for (std::size_t done = 0; !bytes.empty() && done < o.bytes(); done += bytes.size())
        backend_.copy_in(static_cast<std::byte*>(at) + done, bytes.data(),
                         std::min(bytes.size(), o.bytes() - done));
    }
    offset += room(o);
  }
  return all;
}

}  // namespace gradflow::app
