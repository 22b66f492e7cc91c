// Kernels over more elements than 32 bits count. The arrays are address space alone: of each, a thread or a block
// touches a few pages, which read as zeros where nothing was written.
#include <gtest/gtest.h>
#include <sys/mman.h>

#include <cstddef>
#include <vector>

#include "kernels/cuda/queue.h"
#include "kernels/cuda/storage.cuh"

extern "C" {
void relu_forward_bf16(const gradflow::kernels::cuda::Bf16* x, gradflow::kernels::cuda::Bf16* y, std::size_t n,
                       bool vector);
void column_sum_bf16(const gradflow::kernels::cuda::Bf16* x, float* y, std::size_t rows, std::size_t columns,
                     bool vector, bool accumulate, gradflow::kernels::cuda::ReductionScratch scratch);
}

namespace gradflow::kernels::cuda {
namespace {

constexpr std::size_t kPast32Bits = std::size_t{1} << 32;

class AddressSpace {
 public:
  explicit AddressSpace(std::size_t elements) : bytes_(elements * sizeof(Bf16)) {
    at_ = mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    EXPECT_TRUE(given()) << bytes_ << " bytes of address space are refused: by ulimit -v, or vm.overcommit_memory=2";
  }
  ~AddressSpace() {
    if (given()) munmap(at_, bytes_);
  }
  AddressSpace(const AddressSpace&) = delete;
  AddressSpace& operator=(const AddressSpace&) = delete;

  bool given() const { return at_ != MAP_FAILED; }
  Bf16* data() const { return static_cast<Bf16*>(at_); }

 private:
  std::size_t bytes_;
  void* at_;
};

// What the thread that comes to element n - 1 does, of a grid of `blocks` blocks.
void relu_by_one_thread(std::size_t n, bool vector, unsigned blocks, std::size_t thread, const Bf16* x, Bf16* y) {
  ::simt::run("relu_forward_bf16", {1, 1, 1}, {1, 1, 1}, [&] {
    gridDim = {blocks, 1, 1};
    blockDim = {kBlockThreads, 1, 1};
    blockIdx = {static_cast<unsigned>(thread / kBlockThreads), 0, 0};
    threadIdx = {static_cast<unsigned>(thread % kBlockThreads), 0, 0};
    relu_forward_bf16(x, y, n, vector);
  });
}

TEST(Lengths, OfAStreamMayPass32Bits) {
  const std::size_t n = kPast32Bits + 1003;
  const AddressSpace x(n), y(n);
  if (!x.given() || !y.given()) return;
  for (const bool vector : {false, true}) {
    const std::size_t packs = n / kPackOf<Bf16>;
    // A thread of few that walks far, and one of more threads than there are elements.
    for (const unsigned blocks : {(1u << 18) + 1, (1u << 24) + 4}) {
      SCOPED_TRACE(testing::Message() << "vector=" << vector << " blocks=" << blocks);
      const std::size_t threads = std::size_t{blocks} * kBlockThreads;
      if (vector && threads > packs) continue;
      const std::size_t last = (vector ? packs : n) - 1, thread = last % threads;
      const std::size_t width = vector ? kPackOf<Bf16> : 1;
      for (std::size_t i = thread; i <= last; i += threads) {
        x.data()[width * i] = narrow<Bf16>(2.0f);
        y.data()[width * i] = narrow<Bf16>(0.0f);
      }
      relu_by_one_thread(n, vector, blocks, thread, x.data(), y.data());
      for (std::size_t i = thread; i <= last; i += threads)
        ASSERT_EQ(widen(y.data()[width * i]), 2.0f) << "element " << width * i;
    }
    if (!vector) continue;
    x.data()[n - 1] = narrow<Bf16>(2.0f);  // behind the last pack
    relu_by_one_thread(n, true, 1u << 18, n % kPackOf<Bf16> - 1, x.data(), y.data());
    EXPECT_EQ(widen(y.data()[n - 1]), 2.0f);
  }
}

// The block that comes to the last row; the sums of the others are zeros.
TEST(Lengths, OfAColumnMayPass32Bits) {
  struct Matrix {
    std::size_t rows, columns;
  };
  for (const Matrix& m : {Matrix{kPast32Bits + 1003, 1}, Matrix{kPast32Bits / 4 + 77, 5}, Matrix{kPast32Bits / 8 + 77, 8}}) {
    SCOPED_TRACE(testing::Message() << m.rows << "x" << m.columns);
    const AddressSpace x(m.rows * m.columns);
    if (!x.given()) return;
    const bool vector = m.columns % kPackOf<Bf16> == 0;
    const unsigned width = vector || m.columns == 1 ? 1 : 8, height = kBlockThreads / width, blocks = 65535;
    const auto mine = static_cast<unsigned>((m.rows - 1) / height % blocks);
    float sum = 0;
    for (std::size_t row = (m.rows - 1) % (std::size_t{blocks} * height); row < m.rows;
         row += std::size_t{blocks} * height) {
      x.data()[row * m.columns + m.columns - 1] = narrow<Bf16>(2.0f);
      sum += 2.0f;
    }
    std::vector<double> partials(std::size_t{blocks} * (vector ? m.columns : width));
    unsigned ticket = blocks - 1;
    std::vector<float> y(m.columns, -1.0f);
    ::simt::run("column_sum_bf16", {1, 1, 1}, {width, height, 1}, [&] {
      gridDim = {1, blocks, 1};
      blockIdx = {0, mine, 0};
      column_sum_bf16(x.data(), y.data(), m.rows, m.columns, vector, false, {&ticket, partials.data()});
    });
    std::vector<float> want(m.columns, 0.0f);
    want.back() = sum;
    EXPECT_EQ(y, want);
    EXPECT_EQ(ticket, 0u);
  }
}

}  // namespace
}  // namespace gradflow::kernels::cuda
