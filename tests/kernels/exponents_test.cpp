// Histograms over exponents that ride along in a pass: bit for bit what a launch of their own counts (which
// stats_test.cpp holds to the definition), of inputs before and outputs after, and no other bit differs.
#include <cstring>
#include <vector>

#include "bf16_numbers.h"

namespace gradflow::kernels::test {
namespace {

using Bins = std::vector<std::uint64_t>;

template <class S>
std::vector<S> wild_numbers(Random& random, std::size_t n) {
  if constexpr (std::is_same_v<S, Bf16>)
    return rounded(random.wild<float>(n));
  else
    return random.wild<S>(n);
}

template <class S>
bool same_bytes(const std::vector<S>& a, const std::vector<S>& b) {
  return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(S)) == 0);
}

class Exponents : public BackendTest {
 public:
  // f.template operator()<S>(dtype) for everything the device stores.
  template <class F>
  void for_each_storage(F f) {
    f.template operator()<float>(DType::f32);
    f.template operator()<Bf16>(DType::bf16);
    if (device().supports(DType::f64)) f.template operator()<double>(DType::f64);
  }

  template <class S>
  Bins counted(DType dtype, const std::vector<S>& x) {
    DeviceArray<S> data(device(), x);
    DeviceArray<std::uint64_t> bins(device(), kExponentBins, 3);
    device().exponent_histogram({dtype, x.size(), data.data(), bins.data()});
    return bins.get();
  }

  // pass(out, stats, exponents) runs one pass with two sinks of each kind, null where they are not asked for, and
  // writes over `old`. What it reads is `first`; what the second histogram is of is the result, or nothing.
  template <class S, class Pass>
  void expect_ride(DType dtype, const std::vector<S>& first, const std::vector<S>& old, bool of_result,
                   std::size_t offset, const Pass& pass) {
    DeviceArray<S> plain(device(), old, offset), measured(device(), old, offset), both(device(), old, offset),
        alone(device(), old, offset);
    DeviceArray<Stats> s(device(), 4);
    DeviceArray<std::uint64_t> bins(device(), 4 * kExponentBins, 3);
    Stats* const stats = s.data();
    std::uint64_t* const of_both = bins.data();
    std::uint64_t* const of_alone = of_both + 2 * kExponentBins;
    pass(plain.data(), nullptr, nullptr, nullptr, nullptr);
    pass(measured.data(), stats, stats + 1, nullptr, nullptr);
    pass(both.data(), stats + 2, stats + 3, of_both, of_both + kExponentBins);
    pass(alone.data(), nullptr, nullptr, of_alone, nullptr);  // without statistics, and one of the two
    pass(alone.data(), nullptr, nullptr, nullptr, nullptr);   // nobody's bins grow
    device().synchronize();
    const std::vector<S> result = plain.get();
    EXPECT_TRUE(same_bytes(both.get(), result)) << "histograms changed a bit of the result";
    EXPECT_TRUE(same_bytes(measured.get(), result));
    const std::vector<Stats> seen = s.get();
    EXPECT_EQ(std::memcmp(&seen[0], &seen[2], 2 * sizeof(Stats)), 0) << "histograms changed the statistics";
    const Bins got = bins.get(), want = counted(dtype, first),
               untouched(kExponentBins, 3), want_second = of_result ? counted(dtype, result) : untouched;
    const auto part = [&](std::size_t i) {
      const auto at = got.begin() + static_cast<std::ptrdiff_t>(i * kExponentBins);
      return Bins(at, at + static_cast<std::ptrdiff_t>(kExponentBins));
    };
    EXPECT_EQ(part(0), want);
    EXPECT_EQ(part(1), want_second);
    EXPECT_EQ(part(2), want);
    EXPECT_EQ(part(3), untouched);
  }
};

constexpr std::size_t kCountedLengths[] = {0, 1, 31, 33, 1023, 1025, 20011};
constexpr PointwiseId kCountedOps[] = {PointwiseId::relu, PointwiseId::gelu, PointwiseId::sigmoid};

TEST_P(Exponents, RideInPointwiseForward) {
  Random random(61);
  for_each_storage([&]<class S>(DType dtype) {
    for (const PointwiseId op : kCountedOps)
      for (const std::size_t n : kCountedLengths)
        for (const std::size_t offset : kOffsets) {
          SCOPED_TRACE(fmt::format("{} {} n={} offset={}", name_of(dtype), info_of(op).name, n, offset));
          const std::vector<S> x = wild_numbers<S>(random, n);
          DeviceArray<S> in(device(), x, offset);
          expect_ride(dtype, x, std::vector<S>(n), true, offset,
                      [&](S* y, Stats* x_stats, Stats* y_stats, std::uint64_t* of_x, std::uint64_t* of_y) {
                        device().pointwise_forward({op, dtype, n, in.data(), y, x_stats, y_stats, of_x, of_y});
                      });
        }
  });
}

TEST_P(Exponents, RideInPointwiseForwardInPlace) {
  Random random(62);
  for_each_storage([&]<class S>(DType dtype) {
    const std::vector<S> x = wild_numbers<S>(random, 5003);
    DeviceArray<S> plain(device(), x), measured(device(), x);
    DeviceArray<std::uint64_t> bins(device(), 2 * kExponentBins, 3);
    device().pointwise_forward({PointwiseId::tanh, dtype, x.size(), plain.data(), plain.data()});
    device().pointwise_forward({PointwiseId::tanh, dtype, x.size(), measured.data(), measured.data(), nullptr, nullptr,
                                bins.data(), bins.data() + kExponentBins});
    device().synchronize();
    EXPECT_TRUE(same_bytes(measured.get(), plain.get()));
    Bins want = counted(dtype, x);
    const Bins of_y = counted(dtype, plain.get());
    want.insert(want.end(), of_y.begin(), of_y.end());
    EXPECT_EQ(bins.get(), want);
  });
}

TEST_P(Exponents, RideInPointwiseBackward) {
  Random random(63);
  for_each_storage([&]<class S>(DType dtype) {
    for (const PointwiseId op : kCountedOps)
      for (const std::size_t n : kCountedLengths)
        for (const GradMode mode : kModes) {
          SCOPED_TRACE(fmt::format("{} {} n={} mode={}", name_of(dtype), info_of(op).name, n, static_cast<int>(mode)));
          const std::vector<S> dy = wild_numbers<S>(random, n);
          const std::size_t offset = n % 2;
          DeviceArray<S> saved(device(), wild_numbers<S>(random, n), offset), in(device(), dy, offset);
          expect_ride(dtype, dy, wild_numbers<S>(random, n), mode != GradMode::none, offset,
                      [&](S* dx, Stats* dy_stats, Stats* dx_stats, std::uint64_t* of_dy, std::uint64_t* of_dx) {
                        device().pointwise_backward({op, dtype, n, saved.data(), in.data(), dx, mode, dy_stats,
                                                     dx_stats, of_dy, of_dx});
                      });
        }
  });
}

TEST_P(Exponents, RideInTheResidualAddition) {
  Random random(64);
  for_each_storage([&]<class S>(DType dtype) {
    for (const PointwiseId op : {PointwiseId::identity, PointwiseId::relu})
      for (const std::size_t n : kCountedLengths) {
        SCOPED_TRACE(fmt::format("{} {} n={}", name_of(dtype), info_of(op).name, n));
        const std::vector<S> a = wild_numbers<S>(random, n), b = wild_numbers<S>(random, n);
        DeviceArray<S> skip(device(), a, n % 2), branch(device(), b), y(device(), n), dskip(device(), n);
        DeviceArray<Gates> gates(device(), 1, Gates{1, 0.5f, 1, 0.5f});
        DeviceArray<std::uint64_t> bins(device(), 2 * kExponentBins, 3);
        ResidualForward f{dtype, n, skip.data(), branch.data(), y.data(), gates.data(), 0.3};
        f.op = op;
        device().residual_forward(f);
        const std::vector<S> want_y = y.get();
        f.y_exponents = bins.data();
        device().residual_forward(f);
        EXPECT_TRUE(same_bytes(y.get(), want_y));

        ResidualBackward w{dtype, n, branch.data(), dskip.data()};
        w.branch_mode = GradMode::none;
        w.gates = gates.data(), w.op = op, w.y = y.data();
        device().residual_backward(w);
        const std::vector<S> want_dskip = dskip.get();
        w.dy_exponents = bins.data() + kExponentBins;
        device().residual_backward(w);
        EXPECT_TRUE(same_bytes(dskip.get(), want_dskip));
        w.skip_mode = GradMode::none;  // nothing but the histogram is wanted
        device().residual_backward(w);
        Bins want = counted(dtype, want_y);
        const Bins of_dy = counted(dtype, b);
        for (std::size_t i = 0; i < kExponentBins; ++i) want.push_back(2 * of_dy[i] - 3);  // counted twice
        EXPECT_EQ(bins.get(), want);
      }
  });
}

GRADFLOW_TEST_ON_BACKENDS(Exponents);

}  // namespace
}  // namespace gradflow::kernels::test
