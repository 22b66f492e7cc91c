#include "simt/simt_backend.h"

#include <cstdlib>
#include <filesystem>

#include "kernels/cuda/storage.cuh"
#include "simt/harness.h"

namespace gradflow::kernels::cuda {
namespace {

// cuBLAS cannot be emulated; what stands in for it only has to be right.
class PlainMatmul final : public Matmul {
 public:
  PlainMatmul(Queue& queue, const MatmulDesc& desc) : queue_(queue), d_(desc) {}
  std::size_t workspace_bytes() const noexcept override { return 0; }
  void run(const void* a, const void* b, const void* bias, void* y, void*) override {
    if (d_.bias) {
      broadcast_rows(queue_, d_.y_dtype, static_cast<const float*>(bias), y, static_cast<std::size_t>(d_.m),
                     static_cast<std::size_t>(d_.n));
    }
    if (d_.dtype == DType::f32)
      multiply(static_cast<const float*>(a), static_cast<const float*>(b), static_cast<float*>(y));
    else if (d_.y_dtype == DType::f32)
      multiply(static_cast<const Bf16*>(a), static_cast<const Bf16*>(b), static_cast<float*>(y));
    else
      multiply(static_cast<const Bf16*>(a), static_cast<const Bf16*>(b), static_cast<Bf16*>(y));
  }

 private:
  template <class S, class Y>
  void multiply(const S* a, const S* b, Y* y) const {
    for (std::int64_t i = 0; i < d_.m; ++i) {
      for (std::int64_t j = 0; j < d_.n; ++j) {
        double sum = d_.bias || d_.accumulate ? static_cast<double>(widen(y[i * d_.n + j])) : 0.0;
        for (std::int64_t l = 0; l < d_.k; ++l) {
          const float from_a = widen(d_.transpose_a ? a[l * d_.m + i] : a[i * d_.k + l]);
          const float from_b = widen(d_.transpose_b ? b[j * d_.k + l] : b[l * d_.n + j]);
          sum += static_cast<double>(from_a) * static_cast<double>(from_b);
        }
        y[i * d_.n + j] = narrow<Y>(static_cast<float>(sum));
      }
    }
  }

  Queue& queue_;
  MatmulDesc d_;
};

}  // namespace

std::shared_ptr<Matmul> SimtBackend::prepare_matmul(const MatmulDesc& desc) {
  require_storage(desc.dtype, "matmul");
  return std::make_shared<PlainMatmul>(queue_, desc);
}

// No element, one, around a warp, around a block's threads, around what a block takes at once, primes.
// Every kernel is run at the sizes of cases, from an aligned start and from the element behind it, and
// with no elements (CaseValues). A fiber switch costs ten times more under AddressSanitizer: there two
// schedules and the larger sizes are left out, a case has one schedule at a time, in turn, and the largest
// one the start that is not aligned. That one has two blocks, threads that stride and a tail, so every
// access of a kernel but the wide ones of strides is watched there; those are in the tests of one
// operation, where the same loops (stream.cuh, columns.cuh) have them. A race shows in any schedule, so
// two blocks, a tail, and one schedule do for ThreadSanitizer.
namespace {
#if defined(SIMT_RACES)
constexpr std::size_t kSizes[] = {0, 33, 5003};
constexpr std::size_t kCaseSizes[] = {1037};
constexpr std::uint64_t kSchedules[] = {7};
#elif defined(__SANITIZE_ADDRESS__)
constexpr std::size_t kSizes[] = {0, 1, 5, 31, 33, 1023, 1025, 4099};
constexpr std::size_t kCaseSizes[] = {1, 31, 33, 1023, 1025, 4099};
constexpr std::uint64_t kSchedules[] = {0, 7};
#else
constexpr std::size_t kSizes[] = {0, 1, 3, 4, 31, 33, 1023, 1025, 4099, 40009};
constexpr std::size_t kCaseSizes[] = {1, 31, 33, 1023, 1025, 5003};
constexpr std::uint64_t kSchedules[] = {0, 1, 7, 23};
#endif

// A round that no test knows must not look like one that passed.
bool any_chosen = false;
class SomeRoundRan final : public testing::Environment {
  void TearDown() override {
    const char* asked = std::getenv("SIMT_CASE");
    if (asked != nullptr && !any_chosen) ADD_FAILURE() << "SIMT_CASE='" << asked << "' is no round of the tests that ran";
  }
};
[[maybe_unused]] const auto* const environment = testing::AddGlobalTestEnvironment(new SomeRoundRan);
}  // namespace

Case::Case(const testing::Message& round, const char* file, int line)
    : chosen_([&] {
        const char* asked = std::getenv("SIMT_CASE");
        const bool is_it = asked == nullptr || round.GetString() == asked;
        any_chosen |= is_it;
        return is_it;
      }()),
      command_(file, line, [&] {
        const testing::TestInfo* test = testing::UnitTest::GetInstance()->current_test_info();
        return "repeat: SIMT_CASE='" + round.GetString() + "' " +
               std::filesystem::read_symlink("/proc/self/exe").string() +
               " --gtest_filter=" + test->test_suite_name() + "." + test->name();
      }()) {}

std::span<const std::size_t> sizes() { return kSizes; }
std::span<const std::size_t> case_sizes() { return kCaseSizes; }
std::span<const std::uint64_t> schedules() { return kSchedules; }

}  // namespace gradflow::kernels::cuda
