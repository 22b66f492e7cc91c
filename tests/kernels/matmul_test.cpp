// Matrix products against a naive f64 triple loop.
#include "support.h"

namespace gradflow::kernels::test {
namespace {

class MatmulTest : public BackendTest {
 public:
  // Sizes m, n, k in one description; returns what run() leaves in y.
  template <class T>
  std::vector<T> product(const MatmulDesc& desc, const std::vector<T>& a, const std::vector<T>& b,
                         const std::vector<T>& bias, const std::vector<T>& before, std::size_t offset) {
    auto matmul = device().prepare_matmul(desc);
    DeviceArray<T> da(device(), a, offset), db(device(), b, offset), dbias(device(), bias, offset),
        y(device(), before, offset);
    DeviceArray<unsigned char> workspace(device(), matmul->workspace_bytes());
    matmul->run(da.data(), db.data(), desc.bias ? dbias.data() : nullptr, y.data(),
                matmul->workspace_bytes() ? workspace.data() : nullptr);
    device().synchronize();
    return y.get();
  }

  template <class T>
  void check(MatmulDesc desc, std::uint64_t seed, std::size_t offset = 0) {
    SCOPED_TRACE(
        fmt::format("{} m={} n={} k={} transpose_a={} transpose_b={} accumulate={} bias={} offset={}",
                    name_of(dtype_of<T>()), desc.m, desc.n, desc.k, desc.transpose_a, desc.transpose_b,
                    desc.accumulate, desc.bias, offset));
    desc.dtype = desc.y_dtype = dtype_of<T>();
    Random random(seed);
    const std::size_t m = static_cast<std::size_t>(desc.m), n = static_cast<std::size_t>(desc.n),
                      k = static_cast<std::size_t>(desc.k);
    const std::vector<T> a = random.normals<T>(m * k), b = random.normals<T>(k * n),
                         bias = random.normals<T>(n);
    const std::vector<T> before = desc.accumulate
                                      ? random.normals<T>(m * n)
                                      : std::vector<T>(m * n, std::numeric_limits<T>::quiet_NaN());
    const std::vector<T> y = product(desc, a, b, bias, before, offset);
    std::vector<double> want(m * n), scale(m * n);
    for (std::size_t i = 0; i < m; ++i)
      for (std::size_t j = 0; j < n; ++j) {
        double sum = desc.accumulate ? double(before[i * n + j]) : desc.bias ? double(bias[j]) : 0.0;
        double magnitude = std::fabs(sum);
        for (std::size_t p = 0; p < k; ++p) {
          const double term = double(desc.transpose_a ? a[p * m + i] : a[i * k + p]) *
                              double(desc.transpose_b ? b[j * k + p] : b[p * n + j]);
          sum += term;
          magnitude += std::fabs(term);
        }
        want[i * n + j] = sum;
        scale[i * n + j] = magnitude;
      }
    // Any order of k + 1 additions errs by at most (k + 1) eps/2 of the sum of magnitudes.
    const double factor = static_cast<double>(k + 2) * epsilon<T>();
    EXPECT_TRUE(all_near(y, want, [&](std::size_t i) { return factor * scale[i]; }));
    EXPECT_TRUE(all_same(product(desc, a, b, bias, before, offset), y)) << "a second run gives other bits";
  }

  template <class T>
  void check_all_modes(std::int64_t m, std::int64_t n, std::int64_t k, std::size_t offset = 0) {
    for (const bool ta : {false, true})
      for (const bool tb : {false, true}) {
        check<T>({.m = m, .n = n, .k = k, .transpose_a = ta, .transpose_b = tb}, 1, offset);
        check<T>({.m = m, .n = n, .k = k, .transpose_a = ta, .transpose_b = tb, .accumulate = true}, 2,
                 offset);
        check<T>({.m = m, .n = n, .k = k, .transpose_a = ta, .transpose_b = tb, .bias = true}, 3, offset);
      }
  }
};

TEST_P(MatmulTest, SmallAndOddShapes) {
  const std::int64_t shapes[][3] = {{1, 1, 1},    {1, 7, 3},    {5, 1, 9},   {3, 4, 1},
                                    {16, 16, 16}, {17, 31, 33}, {64, 10, 65}};
  for_each_real([&]<class T>() {
    for (const auto& s : shapes) check_all_modes<T>(s[0], s[1], s[2]);
  });
}

TEST_P(MatmulTest, UnalignedOperands) {
  for_each_real([&]<class T>() { check_all_modes<T>(13, 19, 21, 1); });
}

TEST_P(MatmulTest, EmptySides) {
  for_each_real([&]<class T>() {
    check_all_modes<T>(0, 5, 3);
    check_all_modes<T>(5, 0, 3);
    check_all_modes<T>(5, 3, 0);  // zeros, the bias, or y unchanged
    check_all_modes<T>(0, 0, 0);
  });
}

TEST_P(MatmulTest, TheShapesOfALinearLayer) {
  for_each_real([&]<class T>() {
    check<T>({.m = 128, .n = 256, .k = 256, .transpose_b = true, .bias = true}, 4);        // y = x W^T + b
    check<T>({.m = 128, .n = 256, .k = 256}, 5);                                           // dx = dy W
    check<T>({.m = 256, .n = 256, .k = 128, .transpose_a = true}, 6);                      // dW = dy^T x
    check<T>({.m = 256, .n = 256, .k = 128, .transpose_a = true, .accumulate = true}, 7);  // dW += dy^T x
  });
}

TEST_P(MatmulTest, EqualDescriptionsShareOneProduct) {
  const MatmulDesc desc{.m = 4, .n = 5, .k = 6};
  MatmulDesc other = desc;
  other.transpose_a = true;
  EXPECT_EQ(device().prepare_matmul(desc), device().prepare_matmul(desc));
  EXPECT_NE(device().prepare_matmul(desc), device().prepare_matmul(other));
}

TEST_P(MatmulTest, NanAndInfinityArePassedOn) {
  const float nan = std::numeric_limits<float>::quiet_NaN(), inf = std::numeric_limits<float>::infinity();
  const MatmulDesc desc{.m = 2, .n = 2, .k = 2};
  const std::vector<float> y = product<float>(desc, {nan, 0, 1, inf}, {1, 0, 0, 1}, {0, 0}, {5, 5, 5, 5}, 0);
  EXPECT_TRUE(std::isnan(y[0]) && std::isnan(y[1]));  // NaN * 0 is NaN: no shortcut for zeros
  EXPECT_TRUE(std::isnan(y[2]));                      // 1 + Inf * 0
  EXPECT_EQ(y[3], inf);
}

TEST_P(MatmulTest, WhatCannotBeComputedIsRefused) {
  EXPECT_THROW(device().prepare_matmul({.dtype = DType::i32, .m = 1, .n = 1, .k = 1}), UserError);
  EXPECT_THROW(device().prepare_matmul({.m = 1, .n = 1, .k = 1, .accumulate = true, .bias = true}),
               InternalError);
  EXPECT_THROW(device().prepare_matmul({.m = -1, .n = 1, .k = 1}), InternalError);
  EXPECT_THROW(device().prepare_matmul({.m = 1, .n = 1, .k = 1, .y_dtype = DType::bf16}), InternalError);
}

GRADFLOW_TEST_ON_BACKENDS(MatmulTest);

}  // namespace
}  // namespace gradflow::kernels::test
