// What the kernel tests share: arrays at chosen alignments, inputs with every special value, and a
// comparison of two backends on the same inputs.
#pragma once

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <random>
#include <span>
#include <string>
#include <vector>

#include "gradflow/kernels/error.h"
#include "kernels/cuda/simt.h"
#include "simt/simt_backend.h"

namespace gradflow::kernels::cuda {

// A copy of `values` in memory of a backend, `offset` elements after an aligned address. What lies before and
// after must stay as it was; for AddressSanitizer, nothing is allocated after the end.
template <class T>
class Array {
 public:
  Array(Backend& backend, const std::vector<T>& values, std::size_t offset = 0)
      : backend_(backend), offset_(offset), n_(values.size()) {
    memory_ = static_cast<T*>(backend.allocate((offset + n_) * sizeof(T) + kAfter));
    if (offset != 0) std::memset(static_cast<void*>(memory_), kGuard, offset * sizeof(T));
    if (kAfter != 0) std::memset(static_cast<void*>(data() + n_), kGuard, kAfter);
    backend.copy_in(data(), values.data(), n_ * sizeof(T));
  }
  Array(Backend& backend, std::size_t n, std::size_t offset = 0)
      : Array(backend, std::vector<T>(n), offset) {}
  ~Array() {
    expect_guard(memory_, offset_ * sizeof(T), "before the start");
    if (kAfter != 0) expect_guard(data() + n_, kAfter, "after the end");
    backend_.deallocate(memory_);
  }
  Array(const Array&) = delete;
  Array& operator=(const Array&) = delete;

  T* data() const { return memory_ == nullptr ? nullptr : memory_ + offset_; }
  std::vector<T> read() const { return std::vector<T>(data(), data() + n_); }

 private:
  static constexpr unsigned char kGuard = 0x5a;
#ifdef __SANITIZE_ADDRESS__
  static constexpr std::size_t kAfter = 0;
#else
  static constexpr std::size_t kAfter = 64;
#endif

  static void expect_guard(const T* at, std::size_t bytes, const char* where) {
    const auto* byte = reinterpret_cast<const unsigned char*>(at);
    for (std::size_t i = 0; i < bytes; ++i) {
      if (byte[i] != kGuard) FAIL() << "written " << where;
    }
  }

  Backend& backend_;
  std::size_t offset_, n_;
  T* memory_ = nullptr;
};

// Normal numbers; with `special`, a NaN, infinities, zeros of both signs and denormals among them.
inline std::vector<float> numbers(std::size_t n, unsigned seed, bool special = false) {
  std::mt19937 generator(seed);
  std::normal_distribution<float> normal;
  constexpr float kInf = std::numeric_limits<float>::infinity();
  const float specials[] = {0.0f,  -0.0f, 1e-40f, -3e-45f, 1.17549435e-38f, 90.0f, -90.0f,
                            3e38f, kInf,  -kInf,  NAN};
  std::vector<float> x(n);
  for (std::size_t i = 0; i < n; ++i) {
    x[i] = normal(generator);
    if (special && i % 5 == 2) x[i] = specials[i / 5 % std::size(specials)];
  }
  return x;
}

// All NaN count as the same: a device makes one NaN, but of two NaN operands x86 returns the first with its sign, and
// which comes first is the compiler's choice, template by template.
inline bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  if (a.size() != b.size()) return false;
  for (std::size_t i = 0; i < a.size(); ++i) {
    if (std::isnan(a[i]) && std::isnan(b[i])) continue;
    if (std::bit_cast<std::uint32_t>(a[i]) != std::bit_cast<std::uint32_t>(b[i])) return false;
  }
  return true;
}

// Below the smallest normal number all places have one size: to `relative` of this, denormals are few places off.
inline constexpr double kSmallestNormal = 1.17549435e-38;

// Equal where one is not finite; else within `relative` of the larger of `scale` and the values' size.
inline void expect_close(const std::vector<float>& got, const std::vector<float>& want, double relative,
                         double scale = kSmallestNormal) {
  ASSERT_EQ(got.size(), want.size());
  for (std::size_t i = 0; i < got.size(); ++i) {
    if (std::isnan(want[i]) ? std::isnan(got[i]) : got[i] == want[i]) continue;
    const double error = std::fabs(static_cast<double>(got[i]) - static_cast<double>(want[i]));
    const double size = std::max<double>(scale, std::fabs(static_cast<double>(want[i])));
    ASSERT_TRUE(error <= relative * size) << "element " << i << ": " << got[i] << ", want " << want[i];
  }
}

// Sums of up to n terms in f64, added in another order: each term enters with a relative error of n * 2^-53.
inline void expect_close(const Stats& got, const Stats& want) {
  const auto close = [&](double a, double b, double size) {
    if (std::isnan(b) ? std::isnan(a) : a == b) return true;
    return std::fabs(a - b) <= size * static_cast<double>(want.count + 1) * 2.3e-16;
  };
  const double size = std::sqrt(want.sum_squares * static_cast<double>(want.count));  // >= sum of |x|
  EXPECT_TRUE(close(got.sum, want.sum, size)) << got.sum << " " << want.sum;
  EXPECT_TRUE(close(got.sum_squares, want.sum_squares, want.sum_squares)) << got.sum_squares;
  EXPECT_EQ(got.count, want.count);
  EXPECT_EQ(got.zeros, want.zeros);
  EXPECT_EQ(got.denormals, want.denormals);
  EXPECT_EQ(got.nonfinite, want.nonfinite);
  EXPECT_EQ(got.saturated, want.saturated);
  EXPECT_EQ(got.max_abs_bits, want.max_abs_bits);
}

// One round of a test's loops: a failure in it prints the command that runs this round alone.
//   SIMT_CASE(Op::name << " n=" << n);     // goes on with the loop where another round was asked for
class Case {
 public:
  Case(const testing::Message& round, const char* file, int line);
  bool chosen() const { return chosen_; }

 private:
  bool chosen_;
  testing::ScopedTrace command_;
};
#define SIMT_CASE(round)                                                 \
  const Case simt_case{testing::Message() << round, __FILE__, __LINE__}; \
  if (!simt_case.chosen()) continue

// The emulated device and the host backend side by side.
class KernelTest : public testing::Test {
 protected:
  KernelTest() : cpu(open_cpu(1)) { ::simt::set_seed(0); }
  ~KernelTest() override { EXPECT_TRUE(simt.simt_queue().idle()) << "a kernel left a ticket behind"; }

  SimtBackend simt;
  std::unique_ptr<Backend> cpu;
};

// Lengths and schedules to try, see simt_backend.cpp.
std::span<const std::size_t> sizes();
std::span<const std::size_t> case_sizes();  // where every kernel is run, see case_values_test.cpp
std::span<const std::uint64_t> schedules();

// Cases whose results are one vector.
class VectorTest : public KernelTest {
 protected:
  // f(backend) gives a vector; the same bits under every schedule, and close to the host's.
  template <class F>
  void compare(double tolerance, double scale, const F& f) {
    std::vector<float> first;
    for (const std::uint64_t schedule : schedules()) {
      ::simt::set_seed(schedule);
      const std::vector<float> got = f(simt);
      if (schedule == schedules().front()) first = got;
      EXPECT_TRUE(same_bits(got, first)) << "schedule " << schedule;
    }
    expect_close(first, f(*cpu), tolerance, scale);
  }
};

inline void append(std::vector<float>& to, const std::vector<float>& more) {
  to.insert(to.end(), more.begin(), more.end());
}

// Sums of `n` terms, brought to the terms' size so that one tolerance fits them beside single elements.
inline void append_sums(std::vector<float>& to, const std::vector<float>& sums, std::size_t n) {
  for (const float sum : sums) to.push_back(sum / static_cast<float>(n));
}

struct MatrixShape {
  std::size_t rows, columns;
};

}  // namespace gradflow::kernels::cuda
