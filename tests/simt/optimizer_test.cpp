// Multi-tensor updates on the emulated device against the host backend.
#include <string>

#include "simt/harness.h"

namespace gradflow::kernels::cuda {
namespace {

// Tensors around the chunk of 8192 elements, some not 16-byte aligned, one empty, one without decay. More
// chunks than blocks, so that a block has several.
constexpr std::size_t kTensors[] = {5, 0, 8192, 8193, 1, 20001, 7, 16385, 31};

struct Tensor {
  Tensor(Backend& backend, std::size_t n, unsigned seed, std::size_t offset)
      : w(backend, numbers(n, seed), offset),
        dw(backend, numbers(n, seed + 1), offset % 2),
        m(backend, n, offset),
        v(backend, n, offset) {}
  Array<float> w, dw, m, v;
  Stats w_stats, dw_stats, update_stats;
};

struct Updated {
  std::vector<std::vector<float>> values;  // w, m, v of each tensor
  std::vector<Stats> stats;
};

Updated run(Backend& backend, OptimizerKind kind, bool moments, bool stats, int steps) {
  std::vector<std::unique_ptr<Tensor>> tensors;
  std::vector<UpdateSlice> slices;
  for (const std::size_t n : kTensors) {
    const auto index = static_cast<unsigned>(tensors.size());
    tensors.push_back(std::make_unique<Tensor>(backend, n, 10 * index, index % 3));
    Tensor& t = *tensors.back();
    UpdateSlice slice{.n = n, .w = t.w.data(), .dw = t.dw.data()};
    if (moments) slice.first_moment = t.m.data();
    if (moments) slice.second_moment = t.v.data();
    slice.decay = index != 3;
    if (stats && index != 4) {
      slice.w_stats = &t.w_stats;
      slice.dw_stats = &t.dw_stats;
      slice.update_stats = &t.update_stats;
    }
    slices.push_back(slice);
  }
  OptimizerScalars scalars{.learning_rate = 0.05f, .weight_decay = 0.01f, .momentum = 0.9f};
  scalars.beta1 = 0.9f;
  scalars.beta2 = 0.999f;
  scalars.epsilon = 1e-8f;
  const auto update = backend.prepare_update({.kind = kind, .scalars = &scalars}, slices);
  for (int step = 1; step <= steps; ++step) {
    scalars.bias_correction1 = 1 - std::pow(0.9f, static_cast<float>(step));
    scalars.bias_correction2 = 1 - std::pow(0.999f, static_cast<float>(step));
    update->run();
  }
  Updated result;
  for (const auto& t : tensors) {
    result.values.push_back(t->w.read());
    result.values.push_back(t->m.read());
    result.values.push_back(t->v.read());
    for (const Stats& s : {t->w_stats, t->dw_stats, t->update_stats}) result.stats.push_back(s);
  }
  return result;
}

class Optimizer : public KernelTest {
 protected:
  void compare(OptimizerKind kind, bool moments) {
    Updated first;
    for (const std::uint64_t schedule : schedules()) {
      ::simt::set_seed(schedule);
      const Updated got = run(simt, kind, moments, true, 3);
      if (schedule == schedules().front()) first = got;
      for (std::size_t i = 0; i < got.values.size(); ++i)
        EXPECT_TRUE(same_bits(got.values[i], first.values[i]));
      for (std::size_t i = 0; i < got.stats.size(); ++i) {
        EXPECT_EQ(std::memcmp(&got.stats[i], &first.stats[i], sizeof(Stats)), 0) << "schedule " << schedule;
      }
    }
    const Updated plain = run(simt, kind, moments, false, 3);
    const Updated want = run(*cpu, kind, moments, true, 3);
    for (std::size_t i = 0; i < first.values.size(); ++i) {
      EXPECT_TRUE(same_bits(first.values[i], plain.values[i])) << "statistics changed a bit of part " << i;
      // Three steps of some five roundings each, at values of size one.
      expect_close(first.values[i], want.values[i], 16 * 6e-8, 1.0);
    }
    for (std::size_t i = 0; i < first.stats.size(); ++i) {
      const Stats &got = first.stats[i], &expected = want.stats[i];
      EXPECT_EQ(got.count, expected.count) << i;
      // The weights themselves differ in their last bits, hence the wider bound.
      EXPECT_NEAR(got.norm(), expected.norm(), 1e-5 * expected.norm()) << i;
      EXPECT_NEAR(got.max_abs(), expected.max_abs(), 1e-5 * expected.max_abs()) << i;
      EXPECT_NEAR(got.mean(), expected.mean(), 1e-6) << i;
    }
  }
};

TEST_F(Optimizer, SgdWithoutMomentum) { compare(OptimizerKind::sgd, false); }
TEST_F(Optimizer, SgdWithMomentum) { compare(OptimizerKind::sgd, true); }
TEST_F(Optimizer, Nesterov) { compare(OptimizerKind::nesterov, true); }
TEST_F(Optimizer, Adam) { compare(OptimizerKind::adam, true); }
TEST_F(Optimizer, AdamW) { compare(OptimizerKind::adamw, true); }

// Exact in f32, so the formulas themselves are seen: w = 1, dw = 0.5, lr = 0.25, decay 0.5, momentum 0.5.
TEST_F(Optimizer, ClosedForm) {
  const OptimizerScalars s{.learning_rate = 0.25f, .weight_decay = 0.5f, .momentum = 0.5f};
  for (const auto& [kind, want] :
       {std::pair{OptimizerKind::sgd, 0.75f}, std::pair{OptimizerKind::nesterov, 0.625f}}) {
    const Array<float> w(simt, std::vector<float>{1}), dw(simt, std::vector<float>{0.5f}), m(simt, 1);
    Stats change;
    const std::vector<UpdateSlice> slices{
        {.n = 1, .w = w.data(), .dw = dw.data(), .first_moment = m.data(), .update_stats = &change}};
    simt.prepare_update({.kind = kind, .scalars = &s}, slices)->run();
    EXPECT_EQ(w.read()[0], want);  // g = 1, m = 1; w - 0.25 * 1, or w - 0.25 * (1 + 0.5)
    EXPECT_EQ(m.read()[0], 1.0f);
    EXPECT_EQ(change.sum, static_cast<double>(want) - 1.0);
  }
}

TEST_F(Optimizer, NothingToUpdate) {
  const OptimizerScalars s;
  simt.prepare_update({.scalars = &s}, {})->run();
  const std::vector<UpdateSlice> empty(2);
  simt.prepare_update({.scalars = &s}, empty)->run();
  EXPECT_THROW(simt.prepare_update({.dtype = DType::f64, .scalars = &s}, empty), UserError);
  const std::vector<UpdateSlice> no_moments{{.n = 1}};
  EXPECT_THROW(simt.prepare_update({.kind = OptimizerKind::adam, .scalars = &s}, no_moments), InternalError);
}

}  // namespace
}  // namespace gradflow::kernels::cuda
