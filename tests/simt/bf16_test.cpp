// bf16 kernels under several schedules: the same bits, tails and unaligned starts included. What the bits must be
// is tested in tests/kernels/bf16_test.cpp, which test_simt_backend runs on the emulated kernels too.
#include "gradflow/kernels/bf16.h"

#include "simt/harness.h"

namespace gradflow::kernels::cuda {
namespace {

using Narrow = std::vector<gradflow::Bf16>;

Narrow narrow_numbers(std::size_t n, unsigned seed, bool special = false) {
  Narrow x;
  for (const float v : numbers(n, seed, special)) x.push_back(to_bf16(v));
  return x;
}

class Bf16Schedules : public KernelTest {
 protected:
  // f() gives bytes that no schedule may change.
  template <class F>
  void expect_fixed(const F& f) {
    std::vector<unsigned char> first;
    for (const std::uint64_t schedule : schedules()) {
      ::simt::set_seed(schedule);
      std::vector<unsigned char> bytes;
      f([&](const auto& values) {
        const auto* at = reinterpret_cast<const unsigned char*>(values.data());
        bytes.insert(bytes.end(), at, at + values.size() * sizeof values[0]);
      });
      if (schedule == schedules().front()) first = bytes;
      EXPECT_EQ(bytes, first) << "schedule " << schedule;
    }
  }
};

TEST_F(Bf16Schedules, Elementwise) {
  for (const std::size_t n : sizes()) {
    SCOPED_TRACE(testing::Message() << "n=" << n);
    expect_fixed([&](const auto& keep) {
      const Array<gradflow::Bf16> x(simt, narrow_numbers(n, 1, true), n % 3), dy(simt, narrow_numbers(n, 2, true));
      const Array<gradflow::Bf16> dx(simt, narrow_numbers(n, 3), n % 2), out(simt, n);
      const Array<Gates> gates(simt, std::vector<Gates>{{0.5f, 0.75f, 2, 3}});
      std::vector<Stats> s(6);
      simt.pointwise_forward(
          {PointwiseId::gelu, DType::bf16, n, x.data(), out.data(), &s[0], &s[1]});
      simt.pointwise_backward(
          {PointwiseId::gelu, DType::bf16, n, x.data(), dy.data(), dx.data(), GradMode::accumulate, &s[2], &s[3]});
      keep(out.read());
      simt.residual_forward({DType::bf16, n, x.data(), dy.data(), out.data(), gates.data(), 0.3, &s[4]});
      simt.residual_backward({DType::bf16, n, dy.data(), x.data(), GradMode::accumulate, dy.data(),
                              GradMode::overwrite, gates.data(), 0.3, &s[5]});
      for (const auto* a : {&x, &dy, &dx, &out}) keep(a->read());
      keep(s);
    });
  }
}

TEST_F(Bf16Schedules, Reductions) {
  for (const auto& [rows, columns] : {std::pair<std::size_t, std::size_t>{1, 1}, {33, 10}, {700, 5}, {5, 300}, {2050, 1}}) {
    SCOPED_TRACE(testing::Message() << rows << "x" << columns);
    expect_fixed([&](const auto& keep) {
      const Array<gradflow::Bf16> x(simt, narrow_numbers(rows * columns, 4), 1);
      const Array<float> sums(simt, numbers(columns, 5));
      const Array<std::uint8_t> alive(simt, columns);
      const Array<std::int32_t> labels(simt, std::vector<std::int32_t>(rows, 0));
      std::vector<LossResult> result(1);
      simt.mark_alive({DType::bf16, rows, columns, x.data(), alive.data()});
      simt.column_sum({DType::bf16, rows, columns, x.data(), sums.data(), GradMode::accumulate});
      simt.softmax_cross_entropy({DType::bf16, rows, columns, x.data(), labels.data(), x.data(), result.data()});
      keep(x.read());
      keep(sums.read());
      keep(alive.read());
      keep(result);
    });
  }
}

}  // namespace
}  // namespace gradflow::kernels::cuda
