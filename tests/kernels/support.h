// What the tests of a backend share: which backends there are, guarded device memory, random data.
//
// Every test body is written against the Backend interface and runs once per name in backend_names(): "cpu"
// always; "cuda:0" where there is a device, otherwise it is skipped with the reason, or fails if the
// environment has REQUIRE_GPU=1. The specification of every operation is a naive f64 loop beside its test.
#pragma once

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cerrno>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <map>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include "gradflow/kernels/backend.h"
#include "gradflow/kernels/error.h"

namespace gradflow::kernels::test {

inline constexpr std::size_t kSizes[] = {0, 1, 3, 31, 33, 1023, 1025, 4099, 20011};  // the last need threads
inline constexpr std::size_t kOffsets[] = {0, 1};  // elements past an aligned address

struct Opened {
  std::unique_ptr<Backend> backend;
  std::string reason;  // why there is none
};

inline std::map<std::string, Opened>& all_opened() {
  static std::map<std::string, Opened> all;
  return all;
}

// Closes them before main returns. At exit the static objects of CUDA's libraries, which are loaded after this map was
// made, go before it does, and their handles can no longer be destroyed.
class CloseBackends final : public ::testing::Environment {
 public:
  void TearDown() override { all_opened().clear(); }
};
inline ::testing::Environment* const kCloseBackends = ::testing::AddGlobalTestEnvironment(new CloseBackends);

// Opened once a process: starting a device is slow.
inline Opened& opened(const std::string& name) {
  auto [at, fresh] = all_opened().try_emplace(name);
  if (fresh) {
    if (name == "cpu")
      at->second.backend = open_cpu(2);
    else if (cuda_device_count(&at->second.reason) > 0)
      at->second.backend = open_cuda(0);
  }
  return at->second;
}

class BackendTest : public ::testing::TestWithParam<const char*> {
 public:
  Backend& device() { return *opened(GetParam()).backend; }

  // Calls f.template operator()<T>() for every element type the backend computes in.
  template <class F>
  void for_each_real(F f) {
    f.template operator()<float>();
    if (device().supports(DType::f64)) f.template operator()<double>();
  }

 protected:
  void SetUp() override {
    const auto* info = ::testing::UnitTest::GetInstance()->current_test_info();
    repeat_.emplace(
        __FILE__, __LINE__,
        fmt::format("repeat with: {} --gtest_filter={}.{}", program_invocation_short_name, info->test_suite_name(), info->name()));
    const Opened& o = opened(GetParam());
    if (o.backend) return;
    const char* required = std::getenv("REQUIRE_GPU");
    if (required && std::string_view(required) == "1")
      FAIL() << "REQUIRE_GPU=1, but no CUDA device: " << o.reason;
    GTEST_SKIP() << "no CUDA device: " << o.reason;
  }
  void TearDown() override { repeat_.reset(); }

 private:
  std::optional<::testing::ScopedTrace> repeat_;
};

inline std::string backend_test_name(const ::testing::TestParamInfo<const char*>& info) {
  return std::string(info.param).substr(0, std::string_view(info.param).find(':'));
}

#define GRADFLOW_TEST_ON_BACKENDS(Suite)                                        \
  INSTANTIATE_TEST_SUITE_P(Backends, Suite, ::testing::Values("cpu", "cuda:0"), \
                           ::gradflow::kernels::test::backend_test_name)

// For what needs f64, which CUDA networks have not.
#define GRADFLOW_TEST_ON_HOST(Suite) \
  INSTANTIATE_TEST_SUITE_P(Backends, Suite, ::testing::Values("cpu"), ::gradflow::kernels::test::backend_test_name)

template <class T>
constexpr DType dtype_of() {
  return sizeof(T) == 4 ? DType::f32 : DType::f64;
}

// Device memory with guard bytes before and behind it, `offset` elements away from an aligned address.
template <class T>
class DeviceArray {
 public:
  DeviceArray(Backend& backend, const std::vector<T>& values, std::size_t offset = 0)
      : backend_(backend), size_(values.size()), head_(kGuard + offset * sizeof(T)) {
    std::vector<unsigned char> image(head_ + size_ * sizeof(T) + kGuard, kPattern);
    if (size_) std::memcpy(image.data() + head_, values.data(), size_ * sizeof(T));
    base_ = static_cast<unsigned char*>(backend.allocate(image.size()));
    backend.copy_in(base_, image.data(), image.size());
  }
  DeviceArray(Backend& backend, std::size_t n, T value = {}, std::size_t offset = 0)
      : DeviceArray(backend, std::vector<T>(n, value), offset) {}
  ~DeviceArray() {
    try {
      EXPECT_TRUE(guards_intact()) << "something was written outside an array of " << size_ << " elements";
    } catch (const std::exception& e) {  // a device that failed; thrown from here it would end the program
      ADD_FAILURE() << e.what();
    }
    backend_.deallocate(base_);
  }
  DeviceArray(const DeviceArray&) = delete;
  DeviceArray& operator=(const DeviceArray&) = delete;

  T* data() { return reinterpret_cast<T*>(base_ + head_); }
  std::vector<T> get() const {
    std::vector<T> values(size_);
    if (size_) backend_.copy_out(values.data(), base_ + head_, size_ * sizeof(T));
    return values;
  }
  T front() const { return get().at(0); }

 private:
  static constexpr std::size_t kGuard = 256;
  static constexpr unsigned char kPattern = 0xa5;

  bool guards_intact() const {
    std::vector<unsigned char> image(head_ + size_ * sizeof(T) + kGuard);
    backend_.copy_out(image.data(), base_, image.size());
    for (std::size_t i = 0; i < image.size(); ++i)
      if ((i < head_ || i >= head_ + size_ * sizeof(T)) && image[i] != kPattern) return false;
    return true;
  }

  Backend& backend_;
  std::size_t size_, head_;
  unsigned char* base_;
};

// Fixed seeds: a failure repeats.
class Random {
 public:
  explicit Random(std::uint64_t seed) : engine_(seed) {}
  double normal() { return normal_(engine_); }
  double uniform(double low, double high) { return low + (high - low) * unit_(engine_); }
  std::size_t below(std::size_t n) { return static_cast<std::size_t>(engine_() % n); }
  template <class T>
  std::vector<T> normals(std::size_t n, double scale = 1) {
    std::vector<T> x(n);
    for (T& v : x) v = static_cast<T>(scale * normal());
    return x;
  }
  // Normal numbers with every 7th one special: zeros of both signs, denormals, huge, tiny, infinite, NaN.
  template <class T>
  std::vector<T> wild(std::size_t n) {
    using L = std::numeric_limits<T>;
    // Many of the huge ones must not add up to infinity in f64: whether they do would depend on their order.
    const T huge = sizeof(T) == 8 ? L::max() / T(1 << 20) : L::max();
    const T special[] = {T(0),      -T(0), L::denorm_min(), -L::denorm_min(), L::min() / 2,  L::min(),
                         T(-1e-31), huge,  L::infinity(),   -L::infinity(),   L::quiet_NaN()};
    std::vector<T> x = normals<T>(n);
    for (std::size_t i = below(7); i < n; i += 7) x[i] = special[below(std::size(special))];
    return x;
  }

 private:
  std::mt19937_64 engine_;
  std::normal_distribution<double> normal_;
  std::uniform_real_distribution<double> unit_;
};

inline constexpr GradMode kModes[] = {GradMode::none, GradMode::overwrite, GradMode::accumulate};

// Same bits; all NaN count as the same.
template <class T>
bool same(T a, T b) {
  if (std::isnan(a) || std::isnan(b)) return std::isnan(a) && std::isnan(b);
  return std::memcmp(&a, &b, sizeof(T)) == 0;
}
template <class T>
::testing::AssertionResult all_same(const std::vector<T>& a, const std::vector<T>& b) {
  if (a.size() != b.size())
    return ::testing::AssertionFailure() << a.size() << " and " << b.size() << " elements";
  for (std::size_t i = 0; i < a.size(); ++i)
    if (!same(a[i], b[i]))
      return ::testing::AssertionFailure()
             << "element " << i << " of " << a.size() << ": " << a[i] << " and " << b[i];
  return ::testing::AssertionSuccess();
}

// |got - want| <= tolerance(i) for all i, false for NaN unless both are; infinities must agree.
template <class T, class Tolerance>
::testing::AssertionResult all_near(const std::vector<T>& got, const std::vector<double>& want,
                                    Tolerance tolerance) {
  if (got.size() != want.size()) return ::testing::AssertionFailure() << got.size() << " and " << want.size();
  for (std::size_t i = 0; i < got.size(); ++i) {
    const double g = static_cast<double>(got[i]);
    if (std::isnan(g) && std::isnan(want[i])) continue;
    if (std::isinf(want[i]) && g == want[i]) continue;
    const double error = std::fabs(g - want[i]);
    if (!(error <= tolerance(i)))
      return ::testing::AssertionFailure()
             << "element " << i << " of " << got.size() << ": got " << g << ", want " << want[i] << ", error "
             << error << " > " << tolerance(i);
  }
  return ::testing::AssertionSuccess();
}

template <class T>
constexpr double epsilon() {
  return static_cast<double>(std::numeric_limits<T>::epsilon());
}

// The specification of Stats.
template <class T>
Stats naive_stats(const std::vector<T>& x, PointwiseId op = PointwiseId::identity,
                  double smallest_normal = static_cast<double>(std::numeric_limits<T>::min())) {
  Stats s;
  for (const T v : x) {
    const double d = static_cast<double>(v), magnitude = std::fabs(d);
    s.sum += d;
    s.sum_squares += d * d;
    ++s.count;
    s.zeros += d == 0;
    s.denormals += d != 0 && magnitude < smallest_normal;
    s.nonfinite += !std::isfinite(d);
    ops::All::visit(op, [&]<class Op>() { s.saturated += Op::saturated(v); });
    std::uint64_t bits;
    std::memcpy(&bits, &magnitude, sizeof bits);
    s.max_abs_bits = std::max(s.max_abs_bits, bits);
  }
  return s;
}

// What sums of x are measured by: the sum of |x|, and the part of it that stats.h allows sums to be off by beside
// the rounding of f64 (0 for f64 numbers).
struct Magnitudes {
  double sum = 0;
  double error = 0;
};
template <class T>
Magnitudes sum_of_magnitudes(const std::vector<T>& x) {
  Magnitudes m;
  for (const T v : x) m.sum += std::fabs(static_cast<double>(v));
  m.error = std::is_same_v<T, double> ? 0.0 : 0x1p-19;
  return m;
}

// Counts exactly; sums to n * eps64 of what is added up, the bound for any order of summation, and what
// Magnitudes allows.
inline void expect_stats(const Stats& got, const Stats& want, const Magnitudes& magnitudes) {
  EXPECT_EQ(got.count, want.count);
  EXPECT_EQ(got.zeros, want.zeros);
  EXPECT_EQ(got.denormals, want.denormals);
  EXPECT_EQ(got.nonfinite, want.nonfinite);
  EXPECT_EQ(got.saturated, want.saturated);
  if (std::isnan(want.max_abs()))
    EXPECT_TRUE(std::isnan(got.max_abs()));
  else
    EXPECT_EQ(got.max_abs(), want.max_abs());
  const double bound = static_cast<double>(want.count + 1) * epsilon<double>() + magnitudes.error;
  const auto close = [&](double a, double b, double scale) {
    if (!std::isfinite(b)) return std::isnan(b) ? std::isnan(a) : a == b;
    return std::fabs(a - b) <= bound * scale;
  };
  EXPECT_TRUE(close(got.sum, want.sum, magnitudes.sum)) << got.sum << " and " << want.sum;
  EXPECT_TRUE(close(got.sum_squares, want.sum_squares, want.sum_squares))
      << got.sum_squares << " and " << want.sum_squares;
}

}  // namespace gradflow::kernels::test
