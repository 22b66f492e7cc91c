// Optimizers: five steps against a hand-written f64 reference, and the statistics that come with an update.
#include "support.h"

namespace gradflow::kernels::test {
namespace {

struct State {  // of one parameter, in f64
  double w = 0, m = 0, v = 0;
};

// One step, written from the papers' formulas (see backend.h), not from the implementation.
void reference_step(OptimizerKind kind, const OptimizerScalars& s, int t, bool decay, bool momentum,
                    double dw, State& p) {
  const double wd = decay ? double(s.weight_decay) : 0.0, lr = s.learning_rate;
  if (kind == OptimizerKind::sgd || kind == OptimizerKind::nesterov) {
    const double g = dw + wd * p.w;
    if (!momentum) {
      p.w -= lr * g;
      return;
    }
    p.m = double(s.momentum) * p.m + g;
    p.w -= lr * (kind == OptimizerKind::nesterov ? g + double(s.momentum) * p.m : p.m);
    return;
  }
  const double b1 = s.beta1, b2 = s.beta2;
  const double g = kind == OptimizerKind::adam ? dw + wd * p.w : dw;
  if (kind == OptimizerKind::adamw) p.w -= lr * wd * p.w;
  p.m = b1 * p.m + (1 - b1) * g;
  p.v = b2 * p.v + (1 - b2) * g * g;
  const double m_hat = p.m / (1 - std::pow(b1, t)), v_hat = p.v / (1 - std::pow(b2, t));
  p.w -= lr * m_hat / (std::sqrt(v_hat) + double(s.epsilon));
}

class UpdateTest : public BackendTest {
 public:
  // Runs five steps on slices of these lengths; every second slice is exempt from weight decay.
  template <class T>
  void check(OptimizerKind kind, const std::vector<std::size_t>& lengths, bool with_momentum,
             bool with_stats) {
    SCOPED_TRACE(fmt::format("{} kind {} momentum {} stats {}", name_of(dtype_of<T>()), int(kind),
                             with_momentum, with_stats));
    Random random(31);
    struct Slice {
      DeviceArray<T> w, dw, m, v;
      std::vector<State> want;
    };
    std::vector<std::unique_ptr<Slice>> slices;
    std::vector<UpdateSlice> described;
    DeviceArray<Stats> stats(device(), 3 * lengths.size());
    for (std::size_t s = 0; s < lengths.size(); ++s) {
      const std::size_t n = lengths[s], offset = s % 2;
      const std::vector<T> w = random.normals<T>(n);
      slices.push_back(std::unique_ptr<Slice>(new Slice{{device(), w, offset},
                                                        {device(), n, T(0), offset},
                                                        {device(), n, T(0), offset},
                                                        {device(), n, T(0), offset},
                                                        std::vector<State>(n)}));
      Slice& slice = *slices.back();
      for (std::size_t i = 0; i < n; ++i) slice.want[i].w = double(w[i]);
      UpdateSlice u{n,
                    slice.w.data(),
                    slice.dw.data(),
                    with_momentum ? slice.m.data() : nullptr,
                    kind >= OptimizerKind::adam ? slice.v.data() : nullptr,
                    s % 2 == 0};
      if (with_stats) {
        u.w_stats = stats.data() + 3 * s;
        u.dw_stats = stats.data() + 3 * s + 1;
        u.update_stats = stats.data() + 3 * s + 2;
      }
      described.push_back(u);
    }
    OptimizerScalars scalars{0.05f, 0.02f, with_momentum ? 0.9f : 0.0f, 0.9f, 0.99f, 1e-6f, 1, 1};
    DeviceArray<OptimizerScalars> on_device(device(), {scalars});
    auto update = device().prepare_update({kind, dtype_of<T>(), on_device.data()}, described);
    for (int t = 1; t <= 5; ++t) {
      scalars.learning_rate *= 0.9f;  // every value is read when run() is called
      scalars.bias_correction1 = static_cast<float>(1 - std::pow(double(scalars.beta1), t));
      scalars.bias_correction2 = static_cast<float>(1 - std::pow(double(scalars.beta2), t));
      device().copy_in(on_device.data(), &scalars, sizeof scalars);
      std::vector<std::vector<T>> before, gradients;
      for (auto& slice : slices) {
        before.push_back(slice->w.get());
        gradients.push_back(random.normals<T>(slice->want.size()));
        device().copy_in(slice->dw.data(), gradients.back().data(), gradients.back().size() * sizeof(T));
      }
      device().zero(stats.data(), 3 * lengths.size() * sizeof(Stats));
      update->run();
      device().synchronize();
      for (std::size_t s = 0; s < slices.size(); ++s) {
        const std::size_t n = lengths[s];
        const std::vector<T> w = slices[s]->w.get();
        std::vector<double> want(n);
        for (std::size_t i = 0; i < n; ++i) {
          reference_step(kind, scalars, t, s % 2 == 0, with_momentum, double(gradients[s][i]),
                         slices[s]->want[i]);
          want[i] = slices[s]->want[i].w;
        }
        // A step makes about ten roundings of numbers of the size of w and lr * g; the bias corrections are
        // f32, so f64 inherits their rounding (6e-8 of an update of at most lr * few).
        EXPECT_TRUE(all_near(w, want,
                             [&](std::size_t i) {
                               return t * (10 * epsilon<T>() * (1 + std::fabs(want[i])) +
                                           (kind >= OptimizerKind::adam ? 4e-7 : 0.0));
                             }))
            << "step " << t << " slice " << s;
        if (!with_stats) continue;
        std::vector<T> change(n);
        for (std::size_t i = 0; i < n; ++i) change[i] = w[i] - before[s][i];
        const std::vector<Stats> got = stats.get();
        expect_stats(got[3 * s], naive_stats(before[s]), sum_of_magnitudes(before[s]));
        expect_stats(got[3 * s + 1], naive_stats(gradients[s]), sum_of_magnitudes(gradients[s]));
        const Stats update_want = naive_stats(change);
        EXPECT_EQ(got[3 * s + 2].count, update_want.count);
        EXPECT_EQ(got[3 * s + 2].zeros, update_want.zeros);
        // The difference may be formed in f32 or f64 (one rounding of each change) and is added up in any
        // order.
        const double relative = epsilon<T>() + static_cast<double>(n + 1) * epsilon<double>();
        EXPECT_TRUE(std::fabs(got[3 * s + 2].norm() - update_want.norm()) <= relative * update_want.norm());
        EXPECT_TRUE(std::fabs(got[3 * s + 2].max_abs() - update_want.max_abs()) <=
                    relative * update_want.max_abs());
      }
    }
  }
};

const std::vector<std::size_t> kLengths = {1, 0, 33, 1025, 8192, 8193, 3, 20011};

TEST_P(UpdateTest, Sgd) {
  for_each_real([&]<class T>() {
    check<T>(OptimizerKind::sgd, kLengths, false, false);
    check<T>(OptimizerKind::sgd, kLengths, true, false);
    check<T>(OptimizerKind::sgd, kLengths, true, true);
  });
}
TEST_P(UpdateTest, Nesterov) {
  for_each_real([&]<class T>() {
    check<T>(OptimizerKind::nesterov, kLengths, true, false);
    check<T>(OptimizerKind::nesterov, kLengths, true, true);
  });
}
TEST_P(UpdateTest, Adam) {
  for_each_real([&]<class T>() {
    check<T>(OptimizerKind::adam, kLengths, true, false);
    check<T>(OptimizerKind::adam, kLengths, true, true);
  });
}
TEST_P(UpdateTest, AdamW) {
  for_each_real([&]<class T>() {
    check<T>(OptimizerKind::adamw, kLengths, true, false);
    check<T>(OptimizerKind::adamw, kLengths, true, true);
  });
}

// First step of Adam moves every weight by lr * sign(g), whatever the size of g (epsilon apart).
TEST_P(UpdateTest, AdamsFirstStepIsTheSignOfTheGradient) {
  DeviceArray<float> w(device(), {1.0f, 1.0f, 1.0f}), dw(device(), {1e-3f, -20.0f, 0.0f}), m(device(), 3),
      v(device(), 3);
  OptimizerScalars scalars{0.125f, 0, 0, 0.9f, 0.999f, 1e-12f, 1 - 0.9f, 1 - 0.999f};
  DeviceArray<OptimizerScalars> s(device(), {scalars});
  const UpdateSlice slice{3, w.data(), dw.data(), m.data(), v.data()};
  device().prepare_update({OptimizerKind::adam, DType::f32, s.data()}, {&slice, 1})->run();
  const std::vector<float> got = w.get();
  EXPECT_NEAR(got[0], 0.875, 1e-5);
  EXPECT_NEAR(got[1], 1.125, 1e-5);
  EXPECT_EQ(got[2], 1.0f);
}

TEST_P(UpdateTest, SinksChangeNoBit) {
  Random random(32);
  const std::size_t n = 20011;
  for (const OptimizerKind kind :
       {OptimizerKind::sgd, OptimizerKind::nesterov, OptimizerKind::adam, OptimizerKind::adamw}) {
    const std::vector<float> start = random.normals<float>(n), gradient = random.wild<float>(n);
    std::vector<std::vector<float>> results;
    for (const bool measure : {false, true}) {
      DeviceArray<float> w(device(), start), dw(device(), gradient), m(device(), n), v(device(), n);
      DeviceArray<Stats> stats(device(), 3);
      DeviceArray<OptimizerScalars> s(device(),
                                      {OptimizerScalars{0.1f, 0.01f, 0.9f, 0.9f, 0.99f, 1e-8f, 0.1f, 0.01f}});
      UpdateSlice slice{n, w.data(), dw.data(), m.data(), v.data()};
      if (measure) {
        slice.w_stats = stats.data();
        slice.dw_stats = stats.data() + 1;
        slice.update_stats = stats.data() + 2;
      }
      auto update = device().prepare_update({kind, DType::f32, s.data()}, {&slice, 1});
      update->run();
      update->run();
      device().synchronize();
      results.push_back(w.get());
    }
    EXPECT_TRUE(all_same(results[0], results[1])) << int(kind);
  }
}

TEST_P(UpdateTest, MissingArraysAreRefused) {
  DeviceArray<float> w(device(), 4);
  DeviceArray<OptimizerScalars> s(device(), 1);
  const UpdateSlice slice{4, w.data(), w.data()};
  EXPECT_THROW(device().prepare_update({OptimizerKind::adam, DType::f32, s.data()}, {&slice, 1}),
               InternalError);
  EXPECT_THROW(device().prepare_update({OptimizerKind::nesterov, DType::f32, s.data()}, {&slice, 1}),
               InternalError);
  EXPECT_THROW(device().prepare_update({OptimizerKind::sgd, DType::f32, nullptr}, {&slice, 1}),
               InternalError);
}

GRADFLOW_TEST_ON_BACKENDS(UpdateTest);

}  // namespace
}  // namespace gradflow::kernels::test
