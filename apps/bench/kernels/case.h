// A kernel as the benchmark sees it: what lies in memory, what must be moved, how to launch it.
#pragma once

#include <cstddef>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "gradflow/kernels/backend.h"

namespace gradflow::app {

// What an operand holds. Speed can depend on it: branches, denormals, rows that are gathered.
enum class Content {
  normal,    // standard normal numbers of the operand's dtype
  positive,  // their squares: second moments
  zero,      // results that are added to: statistics, histograms, losses
  bytes,     // anything
  labels,    // i32 in [0, limit)
  rows,      // i32, a random order of [0, elements)
  gates,     // Gates of ones
  scalars,   // OptimizerScalars with which nothing diverges
};

struct Operand {
  Content content = Content::normal;
  DType dtype = DType::f32;
  std::size_t elements = 0;
  std::int32_t limit = 0;

  std::size_t bytes() const noexcept { return elements * size_of(dtype); }
};

// One launch at one size. Bytes are those that must be moved if nothing is in any cache and no intermediate
// result fits on the chip: every input read once, every output written once. An output that is added to is
// read too.
struct Work {
  std::vector<Operand> operands;
  double read_bytes = 0, written_bytes = 0;
  std::size_t rows = 0, columns = 0;  // 0 where the operation knows no rows

  double bytes() const noexcept { return read_bytes + written_bytes; }
};

using LaunchOnce = std::function<void()>;

struct KernelCase {
  std::string name;    // the CUDA kernel's name, and "/variant" where one kernel has several cases
  std::string family;  // "pointwise"
  std::string call;    // of kernels::Backend: "pointwise_backward"
  std::string pass;    // "forward", "backward", "update", "probe", "input" or "memory"
  DType dtype = DType::f32;
  std::vector<std::string> kernels;  // what it launches on CUDA, in this order

  // `size`: elements of the tensor the operation is about, at least 1. A matrix has that many elements or
  // fewer, where its columns do not divide it; at least 4 where channels are moved in fours.
  std::function<Work(std::size_t size)> work;
  // Fixes the operands; the result may be called any number of times. Throws UserError for a dtype that the
  // backend has no kernel for.
  std::function<LaunchOnce(kernels::Backend&, const Work&, std::span<void* const> operands)> bind;
};

// Every case in f32, f64 or bf16 storage. What is not stored in `dtype` (the yardstick: f32) comes with f32.
std::vector<KernelCase> kernel_cases(DType dtype);

}  // namespace gradflow::app
