// The backend as a device: facts, memory, refusals, and what does not depend on the thread count.
#include <functional>
#include <stdexcept>

#include "support.h"

namespace gradflow::kernels::test {
namespace {

class BackendBasics : public BackendTest {};

TEST_P(BackendBasics, DescribesItself) {
  const DeviceInfo& info = device().info();
  EXPECT_EQ(info.name, GetParam());
  EXPECT_FALSE(info.model.empty());
  EXPECT_FALSE(info.libraries.empty());
  EXPECT_NE(info.precision.find("f32"), std::string::npos);
  EXPECT_GT(info.memory_bytes, std::size_t{1} << 20);
  EXPECT_GE(info.threads, 1);
  EXPECT_TRUE(device().supports(DType::f32));
  EXPECT_FALSE(device().supports(DType::i32));
}

TEST_P(BackendBasics, Memory) {
  EXPECT_EQ(device().allocate(0), nullptr);
  device().deallocate(nullptr);
  for (const std::size_t bytes : {std::size_t{1}, std::size_t{255}, std::size_t{100000}}) {
    void* p = device().allocate(bytes);
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(p) % 256, 0u);
    device().zero(p, bytes);
    std::vector<unsigned char> host(bytes, 1);
    device().copy_out(host.data(), p, bytes);
    EXPECT_EQ(host, std::vector<unsigned char>(bytes, 0));
    device().deallocate(p);
  }
}

TEST_P(BackendBasics, TooMuchMemoryIsAnErrorThatNamesTheNumbers) {
  for (const std::size_t bytes : {std::size_t{1} << 60, ~std::size_t{0} - 5}) {
    try {
      device().deallocate(device().allocate(bytes));
      FAIL() << bytes << " bytes were given";
    } catch (const UserError& e) {
      EXPECT_NE(std::string(e.what()).find(std::to_string(bytes)), std::string::npos) << e.what();
    }
  }
}

TEST_P(BackendBasics, CopyAndFill) {
  for_each_real([&]<class T>() {
    for (const std::size_t n : kSizes) {
      DeviceArray<T> a(device(), n, T(1), 1), b(device(), n, T(2));
      device().fill(dtype_of<T>(), a.data(), n, -0.5);
      device().copy(b.data(), a.data(), n * sizeof(T));
      device().synchronize();
      EXPECT_TRUE(all_same(b.get(), std::vector<T>(n, T(-0.5))));
    }
  });
}

// While work is queued, too: the rate of the next step is handed over when this one runs.
TEST_P(BackendBasics, CopiesInHaveReadTheirSourceWhenTheyReturn) {
  const std::size_t many = std::size_t{1} << 22;
  DeviceArray<float> busy(device(), many);
  for (const bool pinned : {false, true})
    for (const std::size_t bytes : {std::size_t{32}, std::size_t{4096}, std::size_t{100000}, std::size_t{1} << 22}) {
      DeviceArray<unsigned char> to(device(), bytes);
      std::vector<unsigned char> pageable(bytes);
      void* const locked = pinned ? device().allocate_host(bytes) : nullptr;
      void* const source = pinned ? locked : pageable.data();
      std::memset(source, 1, bytes);
      for (int i = 0; i < (device().is_host() ? 1 : 200); ++i) device().fill(DType::f32, busy.data(), many, i);
      device().copy_in(to.data(), source, bytes);
      std::memset(source, 2, bytes);
      EXPECT_TRUE(to.get() == std::vector<unsigned char>(bytes, 1)) << bytes << " bytes, pinned " << pinned;
      device().deallocate_host(locked);
    }
}

TEST_P(BackendBasics, AMarkerIsWaitedForBeforeTheSourceOfAQueuedCopyIsWrittenAgain) {
  const std::size_t bytes = std::size_t{1} << 22, rounds = 4;
  EXPECT_EQ(device().allocate_host(0), nullptr);
  device().deallocate_host(nullptr);
  auto* const source = static_cast<unsigned char*>(device().allocate_host(bytes));
  DeviceArray<unsigned char> to(device(), rounds * bytes);
  const auto marker = device().make_marker();
  marker->wait();  // not set yet
  std::vector<unsigned char> want;
  for (std::size_t i = 0; i < rounds; ++i) {
    want.insert(want.end(), bytes, static_cast<unsigned char>(i));
    std::memset(source, static_cast<int>(i), bytes);
    device().copy_in_later(to.data() + i * bytes, source, bytes);
    marker->set();
    marker->wait();
  }
  EXPECT_TRUE(to.get() == want);
  device().deallocate_host(source);
}

// What lies in device memory is read by each replay; what was recorded is not run by recording it.
TEST_P(BackendBasics, ARecordingRepeatsWhatWasQueued) {
  DeviceArray<float> x(device(), 1000, 1.0f), y(device(), 1000, 0.0f);
  DeviceArray<unsigned char> cleared(device(), 100, 7);
  const auto recording = device().record([&] {
    device().zero(cleared.data(), 100);
    device().pointwise_backward({.op = PointwiseId::identity,
                                 .dtype = DType::f32,
                                 .n = 1000,
                                 .saved = x.data(),
                                 .dy = x.data(),
                                 .dx = y.data(),
                                 .mode = GradMode::accumulate});
    device().copy(x.data(), y.data(), 4);
  });
  EXPECT_EQ(recording == nullptr, device().is_host());
  if (!recording) return;
  EXPECT_EQ(y.get(), std::vector<float>(1000, 0.0f));
  recording->replay();
  recording->replay();
  EXPECT_EQ(y.get(), std::vector<float>(1000, 2.0f));
  EXPECT_EQ(cleared.get(), std::vector<unsigned char>(100, 0));
  device().fill(DType::f32, x.data(), 1000, -2);
  recording->replay();
  EXPECT_EQ(y.get(), std::vector<float>(1000, 0.0f));
}

TEST_P(BackendBasics, ARecordingThatFailsLeavesTheDeviceUsable) {
  if (device().is_host()) return;
  DeviceArray<float> x(device(), 1000);
  EXPECT_THROW(device().record([&] {
    device().fill(DType::f32, x.data(), 1000, 1);
    throw std::runtime_error("in the middle");
  }),
               std::runtime_error);
  EXPECT_EQ(x.get(), std::vector<float>(1000, 0.0f));
  device().fill(DType::f32, x.data(), 1000, 2);
  EXPECT_EQ(x.get(), std::vector<float>(1000, 2.0f));
}

TEST_P(BackendBasics, ATimerMeasuresWhatWasQueuedBetween) {
  const std::size_t n = std::size_t{1} << 22;
  DeviceArray<float> x(device(), n);
  const auto timer = device().make_timer();
  timer->start();
  for (int i = 0; i < 8; ++i) device().fill(DType::f32, x.data(), n, i);
  timer->stop();
  const double seconds = timer->seconds();
  EXPECT_GT(seconds, 8 * 4e-12 * static_cast<double>(n) / 20);  // 20 TB/s
  EXPECT_LT(seconds, 60);
}

TEST_P(BackendBasics, OtherElementTypesAreRefused) {
  float x = 0;
  Stats s;
  for (const DType dtype : {DType::u8, DType::i32}) {
    EXPECT_THROW(device().pointwise_forward({PointwiseId::relu, dtype, 1, &x, &x}), UserError);
    EXPECT_THROW(device().stats({dtype, 1, &x, PointwiseId::identity, &s}), UserError);
    EXPECT_THROW(device().column_sum({dtype, 1, 1, &x, &x}), UserError);
    EXPECT_THROW(device().fill(dtype, &x, 1, 0.0), UserError);
  }
  const OptimizerScalars scalars;
  const UpdateSlice slice{.n = 1, .w = &x, .dw = &x};
  EXPECT_THROW(device().prepare_update({OptimizerKind::sgd, DType::bf16, &scalars}, {&slice, 1}), UserError);
}

GRADFLOW_TEST_ON_BACKENDS(BackendBasics);

TEST(CpuBackend, RefusesANegativeThreadCount) { EXPECT_THROW(open_cpu(-1), UserError); }

TEST(CpuBackend, HasNothingToRecord) {
  bool called = false;
  EXPECT_EQ(open_cpu(1)->record([&] { called = true; }), nullptr);
  EXPECT_FALSE(called);
}

// Guaranteed on the host: everything but f32 matrix products has the same bits for any number of threads,
// because work is cut into fixed pieces whose sums are added in order. oneDNN's products have the same bits
// for a fixed number only.
TEST(CpuBackend, ThreadCountChangesNoBitOutsideMatrixProducts) {
  const std::size_t n = 100003, rows = 2000, columns = 50;
  Random random(71);
  const std::vector<float> x = random.normals<float>(n), z = random.normals<float>(n);
  std::vector<std::int32_t> labels(rows);
  for (auto& l : labels) l = static_cast<std::int32_t>(random.below(columns));
  std::vector<std::vector<unsigned char>> results;
  for (const int threads : {1, 2, 3}) {
    auto cpu = open_cpu(threads);
    EXPECT_EQ(cpu->info().threads, threads);
    std::vector<float> y(n), w = x, m(n), bn(n), mean(columns), inv_std(columns), run(columns),
                             spread(columns), dlogits(n), sums(columns);
    std::vector<float> dscale(columns), dshift(columns);
    std::vector<Stats> s(6);
    LossResult loss;
    double dot = 0;
    const OptimizerScalars scalars{0.1f, 0.01f, 0.9f, 0.9f, 0.99f, 1e-8f, 1, 1};
    cpu->pointwise_forward({PointwiseId::tanh, DType::f32, n, x.data(), y.data(), &s[0], &s[1]});
    cpu->stats({DType::f32, n, z.data(), PointwiseId::sigmoid, &s[2]});
    cpu->difference_stats({DType::f32, n, x.data(), z.data(), &s[3], &dot});
    UpdateSlice slice{n, w.data(), z.data(), m.data()};
    slice.w_stats = &s[4];
    slice.update_stats = &s[5];
    cpu->prepare_update({OptimizerKind::nesterov, DType::f32, &scalars}, {&slice, 1})->run();
    cpu->batch_norm_forward({.rows = rows,
                             .channels = columns,
                             .x = x.data(),
                             .y = bn.data(),
                             .mean = mean.data(),
                             .inv_std = inv_std.data(),
                             .running_mean = run.data(),
                             .running_variance = spread.data()});
    cpu->batch_norm_backward({.rows = rows,
                              .channels = columns,
                              .x = x.data(),
                              .dy = z.data(),
                              .mean = mean.data(),
                              .inv_std = inv_std.data(),
                              .dx = y.data(),
                              .dx_mode = GradMode::accumulate,
                              .dscale = dscale.data(),
                              .dshift = dshift.data()});
    cpu->softmax_cross_entropy({DType::f32, rows, columns, x.data(), labels.data(), dlogits.data(), &loss});
    cpu->column_sum({DType::f32, rows, columns, z.data(), sums.data()});
    std::vector<float> fused(n), dbias(columns);
    cpu->bias_activation_backward({PointwiseId::relu, DType::f32, rows, columns, x.data(), nullptr, z.data(), fused.data(),
                                   dbias.data()});
    float dscale_of_all = 0, dshift_of_all = 0;
    std::vector<float> scaled(n);
    cpu->scalar_backward({.n = n, .x = x.data(), .dy = z.data(), .dx = scaled.data(), .dscale = &dscale_of_all,
                          .dshift = &dshift_of_all});
    std::vector<float> drawn(n);
    cpu->random_fill({DType::f32, n, drawn.data(), Distribution::normal, 0, 1, 5, 6, 7});
    std::vector<unsigned char> all;
    const auto append = [&](const void* p, std::size_t bytes) {
      all.insert(all.end(), static_cast<const unsigned char*>(p),
                 static_cast<const unsigned char*>(p) + bytes);
    };
    for (const auto* v : {&y, &w, &m, &bn, &mean, &inv_std, &run, &spread, &dlogits, &sums, &dscale, &dshift, &fused, &dbias,
                          &drawn})
      append(v->data(), v->size() * sizeof(float));
    append(s.data(), s.size() * sizeof(Stats));
    append(&loss.loss_sum, sizeof loss.loss_sum);
    append(&dot, sizeof dot);
    append(&dscale_of_all, sizeof dscale_of_all);
    append(&dshift_of_all, sizeof dshift_of_all);
    results.push_back(all);
  }
  EXPECT_EQ(results[0], results[1]);
  EXPECT_EQ(results[0], results[2]);
}

TEST(CpuBackend, MatrixProductsRepeatForEachThreadCount) {
  Random random(72);
  const std::vector<float> a = random.normals<float>(128 * 256), b = random.normals<float>(256 * 256);
  for (const int threads : {1, 2}) {
    std::vector<std::vector<float>> results;
    for (int i = 0; i < 2; ++i) {
      auto cpu = open_cpu(threads);
      auto product = cpu->prepare_matmul({.m = 128, .n = 256, .k = 256, .transpose_b = true});
      std::vector<float> y(128 * 256);
      void* workspace = cpu->allocate(product->workspace_bytes());
      product->run(a.data(), b.data(), nullptr, y.data(), workspace);
      cpu->deallocate(workspace);
      results.push_back(y);
    }
    EXPECT_TRUE(all_same(results[0], results[1])) << threads << " threads";
  }
}

}  // namespace
}  // namespace gradflow::kernels::test
