// Fused operations against the separate ones they stand for: the same bits in f32 and f64, and in bf16 those of the
// widened f32 operations, rounded once at the end.
#include "stored.h"

namespace gradflow::kernels::test {
namespace {

class Fusion : public BackendTest {
 public:
  template <class T>
  std::vector<T> apply(PointwiseId op, const std::vector<T>& x) {
    DeviceArray<T> d(device(), x), y(device(), x.size());
    device().pointwise_forward({op, dtype_of<T>(), x.size(), d.data(), y.data()});
    return y.get();
  }
  template <class T>
  std::vector<T> apply_backward(PointwiseId op, const std::vector<T>& saved, const std::vector<T>& dy) {
    DeviceArray<T> s(device(), saved), d(device(), dy), dx(device(), dy.size());
    device().pointwise_backward({op, dtype_of<T>(), dy.size(), s.data(), d.data(), dx.data()});
    return dx.get();
  }
};

struct Shape {
  std::size_t rows, columns;
};
// Packs of columns and single ones, tails, more columns than a tile, more rows than a block.
constexpr Shape kShapes[] = {{0, 4}, {4, 0}, {1, 1}, {3, 33}, {31, 64}, {700, 8}, {5, 1025}, {1025, 3}, {67, 200}};

TEST_P(Fusion, BiasAndActivation) {
  Random random(91);
  for_each_storage(device(), [&]<class S>() {
    using T = typename Stored<S>::Wide;
    constexpr DType dtype = Stored<S>::dtype;
    ops::All::for_each([&]<class Op>() {
      for (const auto& [rows, columns] : kShapes) {
        const std::size_t n = rows * columns, offset = columns % 5 == 0 ? 1 : 0;
        SCOPED_TRACE(fmt::format("{} {} {}x{}", name_of(dtype), Op::name, rows, columns));
        const std::vector<T> x = wild<S>(random, n), bias = random.normals<T>(columns);
        std::vector<T> z(n);
        for (std::size_t i = 0; i < n; ++i) z[i] = x[i] + bias[i % columns];
        const std::vector<S> want = narrowed<S>(apply(Op::id, z));
        DeviceArray<S> in(device(), narrowed<S>(x), offset), out(device(), n, S{}, offset);
        DeviceArray<T> b(device(), bias, offset);
        device().bias_activation_forward({Op::id, dtype, rows, columns, in.data(), b.data(), out.data()});
        EXPECT_TRUE(all_same(widened(out.get()), widened(want)));
        if (Op::saves == Saves::y) {
          device().bias_activation_forward({Op::id, dtype, rows, columns, in.data(), b.data(), in.data()});
          EXPECT_TRUE(all_same(widened(in.get()), widened(want)));
        }

        const std::vector<T> dy = widened(narrowed<S>(random.normals<T>(n))), old = random.normals<T>(columns);
        const std::vector<T> from = Op::saves == Saves::y ? widened(want) : z;
        const std::vector<S> want_dx = narrowed<S>(apply_backward(Op::id, from, dy));
        DeviceArray<S> saved(device(), Op::saves == Saves::y ? want : narrowed<S>(x), offset);
        for (const GradMode mode : {GradMode::none, GradMode::overwrite, GradMode::accumulate}) {
          const bool in_place = mode == GradMode::accumulate;
          DeviceArray<S> d(device(), narrowed<S>(dy), offset), dx(device(), n);
          DeviceArray<T> dbias(device(), old, 1);
          device().bias_activation_backward({Op::id, dtype, rows, columns, saved.data(),
                                             Op::saves == Saves::x ? b.data() : nullptr, d.data(),
                                             in_place ? d.data() : dx.data(), dbias.data(), mode});
          EXPECT_TRUE(all_same(widened(in_place ? d.get() : dx.get()), widened(want_dx)));
          if (rows == 0) continue;
          std::vector<double> sum(columns), size(columns);
          for (std::size_t c = 0; c < columns; ++c) {
            sum[c] = mode == GradMode::overwrite ? 0.0 : double(old[c]);
            size[c] = std::fabs(sum[c]);
          }
          if (mode != GradMode::none)
            for (std::size_t i = 0; i < n; ++i) {
              sum[i % columns] += double(Stored<S>::widen(want_dx[i]));
              size[i % columns] += std::fabs(double(Stored<S>::widen(want_dx[i])));
            }
          // Sums in f64 in any order, one rounding to the type of parameters.
          EXPECT_TRUE(all_near(dbias.get(), sum, [&](std::size_t c) {
            return epsilon<T>() * std::fabs(sum[c]) + double(rows + 1) * epsilon<double>() * size[c];
          }));
        }
      }
    });
  });
}

// The same bits with sinks as without, and each sink has what was measured on its own.
TEST_P(Fusion, BiasAndActivationMeasured) {
  Random random(93);
  for_each_storage(device(), [&]<class S>() {
    using T = typename Stored<S>::Wide;
    constexpr DType dtype = Stored<S>::dtype;
    for (const PointwiseId op : {PointwiseId::relu, PointwiseId::tanh, PointwiseId::identity}) {
      for (const auto& [rows, columns] : kShapes) {
        const std::size_t n = rows * columns, offset = columns % 5 == 0 ? 1 : 0;
        SCOPED_TRACE(fmt::format("{} {} {}x{}", name_of(dtype), info_of(op).name, rows, columns));
        const std::vector<T> x = wild<S>(random, n), bias = random.normals<T>(columns);
        std::vector<T> z(n);
        for (std::size_t i = 0; i < n; ++i) z[i] = x[i] + bias[i % columns];
        DeviceArray<S> in(device(), narrowed<S>(x), offset), plain(device(), n, S{}, offset);
        DeviceArray<T> b(device(), bias, offset);
        device().bias_activation_forward({op, dtype, rows, columns, in.data(), b.data(), plain.data()});
        Sinks<S> of_z(device()), of_y(device());
        device().bias_activation_forward({op, dtype, rows, columns, in.data(), b.data(), in.data(), of_z.stats(),
                                          of_y.stats(), of_z.bins(), of_y.bins()});
        EXPECT_TRUE(all_same(widened(in.get()), widened(plain.get())));
        of_z.expect(narrowed<S>(z));
        of_y.expect(plain.get(), op);

        const std::vector<S> dy = narrowed<S>(wild<S>(random, n));
        const std::vector<T> old = random.normals<T>(columns);
        for (const GradMode mode : {GradMode::none, GradMode::accumulate}) {
          DeviceArray<S> from(device(), dy, offset), plain_dx(device(), n, S{}, offset), d(device(), dy, offset);
          DeviceArray<T> plain_dbias(device(), old), dbias(device(), old);
          device().bias_activation_backward({op, dtype, rows, columns, plain.data(), nullptr, from.data(),
                                             plain_dx.data(), plain_dbias.data(), mode});
          Sinks<S> of_dy(device()), of_dx(device());
          device().bias_activation_backward({op, dtype, rows, columns, plain.data(), nullptr, d.data(), d.data(),
                                             dbias.data(), mode, of_dy.stats(), of_dx.stats(), of_dy.bins(),
                                             of_dx.bins()});
          EXPECT_TRUE(all_same(widened(d.get()), widened(plain_dx.get())));
          // bf16 columns may be cut otherwise: sums in f64 in another order, one rounding.
          const std::vector<T> sums = plain_dbias.get();
          EXPECT_TRUE(all_near(dbias.get(), std::vector<double>(sums.begin(), sums.end()), [&](std::size_t c) {
            return 2 * epsilon<T>() * std::fabs(double(sums[c]));
          }));
          of_dy.expect(dy);
          of_dx.expect(plain_dx.get());
        }
        // One sink of four.
        Sinks<S> alone(device());
        device().bias_activation_backward({op, dtype, rows, columns, plain.data(), nullptr, in.data(), in.data(), nullptr,
                                           GradMode::none, alone.stats()});
        expect_stats(alone.seen(), naive_stats(widened(plain.get())), sum_of_magnitudes(widened(plain.get())));
      }
    }
  });
}

TEST_P(Fusion, ResidualAdditionAndActivation) {
  Random random(92);
  DeviceArray<Gates> gates(device(), {Gates{0.5f, -2, 0.75f, 3}});
  for_each_storage(device(), [&]<class S>() {
    using T = typename Stored<S>::Wide;
    constexpr DType dtype = Stored<S>::dtype, wide = Stored<S>::wide_dtype;
    ops::All::for_each([&]<class Op>() {
      if (Op::saves == Saves::x) return;
      for (const std::size_t n : {0, 1, 31, 33, 1023, 4099}) {
        SCOPED_TRACE(fmt::format("{} {} n={}", name_of(dtype), Op::name, n));
        const std::size_t offset = n % 2;
        const std::vector<T> a = wild<S>(random, n), b = widened(narrowed<S>(random.normals<T>(n)));
        DeviceArray<T> wa(device(), a), wb(device(), b), sum(device(), n);
        device().residual_forward({wide, n, wa.data(), wb.data(), sum.data(), gates.data(), 0.3});
        const std::vector<S> want = narrowed<S>(apply(Op::id, sum.get()));
        DeviceArray<S> skip(device(), narrowed<S>(a), offset), branch(device(), narrowed<S>(b), offset);
        DeviceArray<S> y(device(), n, S{}, offset);
        DeviceArray<Stats> s(device(), 2);
        device().residual_forward(
            {dtype, n, skip.data(), branch.data(), y.data(), gates.data(), 0.3, nullptr, Op::id});
        EXPECT_TRUE(all_same(widened(y.get()), widened(want)));
        device().residual_forward(
            {dtype, n, skip.data(), branch.data(), skip.data(), gates.data(), 0.3, s.data(), Op::id});
        EXPECT_TRUE(all_same(widened(skip.get()), widened(want)));
        expect_stats(s.get()[0], naive_stats(widened(want), Op::id, double(std::numeric_limits<T>::min())),
                     sum_of_magnitudes(widened(want)));

        const std::vector<T> dz = apply_backward(Op::id, widened(want), b);
        for (const GradMode to_skip : kModes)
          for (const GradMode to_branch : kModes)
            for (const int alias : {0, 1, 2}) {
              if ((alias == 1 && to_skip != GradMode::overwrite) || (alias == 2 && to_branch != GradMode::overwrite))
                continue;
              DeviceArray<T> wdz(device(), dz), wds(device(), a), wdb(device(), b);
              device().residual_backward(
                  {wide, n, wdz.data(), wds.data(), to_skip, wdb.data(), to_branch, gates.data(), 0.3});
              DeviceArray<S> dy(device(), narrowed<S>(b), offset), ds(device(), narrowed<S>(a)),
                  db(device(), narrowed<S>(b), offset);
              DeviceArray<S>&skip_out = alias == 1 ? dy : ds, &branch_out = alias == 2 ? dy : db;
              DeviceArray<Stats> seen(device(), 1);
              device().residual_backward({dtype, n, dy.data(), skip_out.data(), to_skip, branch_out.data(), to_branch,
                                          gates.data(), 0.3, alias ? seen.data() : nullptr, Op::id, y.data()});
              EXPECT_TRUE(all_same(widened(skip_out.get()), widened(narrowed<S>(wds.get()))));
              EXPECT_TRUE(all_same(widened(branch_out.get()), widened(narrowed<S>(wdb.get()))));
              if (alias) expect_stats(seen.front(), naive_stats(b), sum_of_magnitudes(b));
            }
      }
    });
  });
}

TEST_P(Fusion, ResidualAdditionMeasured) {
  Random random(94);
  DeviceArray<Gates> gates(device(), {Gates{0.5f, -2, 0.75f, 3}});
  for_each_storage(device(), [&]<class S>() {
    using T = typename Stored<S>::Wide;
    constexpr DType dtype = Stored<S>::dtype, wide = Stored<S>::wide_dtype;
    for (const PointwiseId op : {PointwiseId::identity, PointwiseId::relu, PointwiseId::tanh}) {
      for (const std::size_t n : {0, 1, 33, 4099, 20011}) {
        SCOPED_TRACE(fmt::format("{} {} n={}", name_of(dtype), info_of(op).name, n));
        const std::size_t offset = n % 2;
        const std::vector<S> a = narrowed<S>(wild<S>(random, n)), b = narrowed<S>(wild<S>(random, n));
        DeviceArray<T> wa(device(), widened(a)), wb(device(), widened(b)), sum(device(), n);
        device().residual_forward({wide, n, wa.data(), wb.data(), sum.data(), gates.data(), 0.3});
        DeviceArray<S> skip(device(), a, offset), branch(device(), b, offset), plain(device(), n, S{}, offset);
        device().residual_forward(
            {dtype, n, skip.data(), branch.data(), plain.data(), gates.data(), 0.3, nullptr, op});
        Sinks<S> of_y(device()), of_branch(device()), of_sum(device());
        ResidualForward forward{dtype, n, skip.data(), branch.data(), branch.data(), gates.data(), 0.3, of_y.stats(), op};
        forward.y_exponents = of_y.bins();
        forward.branch_stats = of_branch.stats(), forward.branch_exponents = of_branch.bins();
        forward.sum_stats = of_sum.stats(), forward.sum_exponents = of_sum.bins();
        device().residual_forward(forward);
        EXPECT_TRUE(all_same(widened(branch.get()), widened(plain.get())));
        of_y.expect(plain.get(), op);
        of_branch.expect(b);
        of_sum.expect(narrowed<S>(sum.get()));

        const std::vector<S> dy = narrowed<S>(wild<S>(random, n)), old = narrowed<S>(random.normals<T>(n));
        const std::vector<S> dsum = narrowed<S>(apply_backward(op, widened(plain.get()), widened(dy)));
        for (const GradMode to_skip : kModes)
          for (const GradMode to_branch : kModes) {
            DeviceArray<S> from(device(), dy, offset), plain_skip(device(), old), plain_branch(device(), old, offset);
            device().residual_backward({dtype, n, from.data(), plain_skip.data(), to_skip, plain_branch.data(),
                                        to_branch, gates.data(), 0.3, nullptr, op, plain.data()});
            DeviceArray<S> d(device(), dy, offset), dskip(device(), old), dbranch(device(), old, offset);
            const bool over_dy = to_skip == GradMode::overwrite;
            Sinks<S> of_dy(device()), of_dsum(device()), of_dbranch(device());
            ResidualBackward backward{dtype, n, d.data(), over_dy ? d.data() : dskip.data(), to_skip, dbranch.data(),
                                      to_branch, gates.data(), 0.3, of_dy.stats(), op, plain.data()};
            backward.dy_exponents = of_dy.bins();
            backward.dsum_stats = of_dsum.stats(), backward.dsum_exponents = of_dsum.bins();
            backward.dbranch_stats = of_dbranch.stats(), backward.dbranch_exponents = of_dbranch.bins();
            device().residual_backward(backward);
            EXPECT_TRUE(all_same(widened(over_dy ? d.get() : dskip.get()), widened(plain_skip.get())));
            EXPECT_TRUE(all_same(widened(dbranch.get()), widened(plain_branch.get())));
            of_dy.expect(dy);
            of_dsum.expect(dsum);
            of_dbranch.expect(to_branch == GradMode::none ? std::vector<S>{} : plain_branch.get());
          }
      }
    }
  });
}

TEST_P(Fusion, WhatCannotBeFusedIsRefused) {
  DeviceArray<float> x(device(), 4);
  DeviceArray<Gates> gates(device(), {Gates{}});
  for (const PointwiseId op : {PointwiseId::gelu, PointwiseId::silu}) {
    EXPECT_THROW(device().residual_forward(
                     {DType::f32, 4, x.data(), x.data(), x.data(), gates.data(), 1, nullptr, op}),
                 InternalError);
    EXPECT_THROW(device().residual_backward({DType::f32, 4, x.data(), x.data(), GradMode::overwrite, nullptr,
                                             GradMode::none, gates.data(), 1, nullptr, op, x.data()}),
                 InternalError);
    EXPECT_THROW(device().bias_activation_backward({op, DType::f32, 2, 2, x.data(), nullptr, x.data(), x.data()}),
                 InternalError);
    DeviceArray<Stats> seen(device(), 1);
    EXPECT_THROW(device().bias_activation_forward(
                     {op, DType::f32, 2, 2, x.data(), x.data(), x.data(), seen.data()}),
                 InternalError);
    EXPECT_THROW(device().bias_activation_backward({op, DType::f32, 2, 2, x.data(), x.data(), x.data(), x.data(),
                                                    nullptr, GradMode::none, seen.data()}),
                 InternalError);
  }
  EXPECT_THROW(device().residual_backward({DType::f32, 4, x.data(), x.data(), GradMode::overwrite, nullptr,
                                           GradMode::none, gates.data(), 1, nullptr, PointwiseId::relu}),
               InternalError);
  EXPECT_THROW(device().bias_activation_forward({PointwiseId::relu, DType::i32, 2, 2, x.data(), x.data(), x.data()}),
               UserError);
}

GRADFLOW_TEST_ON_BACKENDS(Fusion);

}  // namespace
}  // namespace gradflow::kernels::test
