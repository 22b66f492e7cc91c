// The list of benchmark cases while it is written: one function a family of operations, in cases_*.cpp, and what
// they share.
#pragma once

#include <algorithm>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "apps/bench/kernels/case.h"

namespace gradflow::app::cases {

using kernels::Backend;

inline constexpr std::size_t kColumns = 256;  // of matrices where nothing else is said
using Pointers = std::span<void* const>;

inline Operand numbers(DType t, std::size_t n) { return {.dtype = t, .elements = n}; }
inline Operand zeros(std::size_t bytes) { return {Content::zero, DType::u8, bytes}; }
inline Operand statistics() { return zeros(sizeof(Stats)); }
inline Operand gates() { return {Content::gates, DType::u8, sizeof(kernels::Gates)}; }
inline Stats* stats_at(void* p) { return static_cast<Stats*>(p); }

// A matrix of at most `size` elements, with that many columns or fewer.
inline Work matrix(std::size_t size, std::size_t columns) {
  Work w;
  w.columns = std::min(size, columns);
  w.rows = size / w.columns;
  return w;
}

inline std::size_t elements(const Work& w) { return w.rows * w.columns; }

class CaseList {
 public:
  explicit CaseList(DType dtype) : t_(dtype), bytes_(static_cast<double>(size_of(dtype))) {}

  void pointwise();
  void with_exponents();
  void residual();
  void measured_residual();
  void scalars();
  void fusions();
  void batch_norm(bool packs);
  void pooling();
  void matrices();
  void loss();
  void probes();
  void inputs();
  void updates();
  void memory();
  std::vector<KernelCase> take() { return std::move(list_); }

 private:
  DType t_;
  double bytes_;  // of an element
  std::vector<KernelCase> list_;

  std::string named(std::string_view stem) const {
    return std::string(stem) + "_" + std::string(name_of(t_));
  }

  // The kernel is called as the stem with the dtype's name behind it.
  KernelCase& add(std::string_view stem, std::string_view variant, const char* family, const char* call,
                  const char* pass) {
    const std::string kernel = named(stem);
    return list_.emplace_back(KernelCase{.name = kernel + (variant.empty() ? "" : "/" + std::string(variant)),
                                         .family = family,
                                         .call = call,
                                         .pass = pass,
                                         .dtype = t_,
                                         .kernels = {kernel}});
  }

  // `reads` and `writes` arrays of n elements; `arrays` of them are operands, and then what else there is.
  auto arrays(std::size_t arrays, double reads, double writes, std::vector<Operand> more = {}) const {
    return [t = t_, b = bytes_, arrays, reads, writes, more = std::move(more)](std::size_t n) {
      Work w{.operands = std::vector<Operand>(arrays, numbers(t, n)),
             .read_bytes = reads * b * static_cast<double>(n),
             .written_bytes = writes * b * static_cast<double>(n)};
      w.operands.insert(w.operands.end(), more.begin(), more.end());
      return w;
    };
  }
};

}  // namespace gradflow::app::cases
