// Casts, augmented batches and random fills.
#include "gradflow/kernels/bf16.h"
#include "gradflow/kernels/random.h"
#include "support.h"

namespace gradflow::kernels::test {
namespace {

class Batch : public BackendTest {};

TEST_P(Batch, CastsRoundToNearestEven) {
  Random random(101);
  for (const std::size_t n : kSizes)
    for (const std::size_t offset : {0u, 1u, 4u}) {
      SCOPED_TRACE(fmt::format("n={} offset={}", n, offset));
      const std::vector<float> x = random.wild<float>(n);
      DeviceArray<float> wide(device(), x, offset), back(device(), n, 7.0f, offset);
      DeviceArray<Bf16> narrow(device(), n, Bf16{7}, offset);
      device().cast({DType::f32, DType::bf16, n, wide.data(), narrow.data()});
      device().cast({DType::bf16, DType::f32, n, narrow.data(), back.data()});
      std::vector<float> want(n);
      for (std::size_t i = 0; i < n; ++i) want[i] = to_float(to_bf16(x[i]));
      EXPECT_TRUE(all_same(back.get(), want));
      if (!device().supports(DType::f64)) continue;
      const std::vector<double> y = random.wild<double>(n);
      DeviceArray<double> f64(device(), y), from(device(), n);
      device().cast({DType::f64, DType::f32, n, f64.data(), back.data()});
      device().cast({DType::bf16, DType::f64, n, narrow.data(), from.data()});
      const std::vector<float> rounded = back.get();
      const std::vector<double> widened = from.get();
      for (std::size_t i = 0; i < n; ++i) {
        EXPECT_TRUE(same(rounded[i], static_cast<float>(y[i])));
        EXPECT_TRUE(same(widened[i], static_cast<double>(want[i])));
      }
      device().cast({DType::f64, DType::bf16, n, f64.data(), narrow.data()});
      const std::vector<Bf16> stored = narrow.get();
      for (std::size_t i = 0; i < n; ++i) EXPECT_EQ(stored[i], to_bf16(static_cast<float>(y[i])));
    }
  float x = 0;
  EXPECT_THROW(device().cast({DType::f32, DType::f32, 1, &x, &x}), InternalError);
  EXPECT_THROW(device().cast({DType::i32, DType::f32, 1, &x, &x}), UserError);
}

// The definition: pad the centered image with zeros, take a window of its own size, mirror it.
TEST_P(Batch, ShiftedAndMirroredImages) {
  Random random(102);
  struct Shape {
    std::size_t height, width, channels;
  };
  for (const auto& [height, width, channels] : {Shape{1, 1, 1}, Shape{5, 7, 3}, Shape{8, 8, 1}, Shape{32, 32, 3}})
    for (const bool per_pixel : {false, true})
      for (const std::size_t batch : {0, 1, 33}) {
        SCOPED_TRACE(fmt::format("{}x{}x{} batch {} per pixel {}", height, width, channels, batch, per_pixel));
        const std::size_t features = height * width * channels, images = 9;
        std::vector<std::uint8_t> pixel(images * features);
        std::vector<std::uint16_t> label(images);
        for (auto& p : pixel) p = static_cast<std::uint8_t>(random.below(256));
        for (auto& l : label) l = static_cast<std::uint16_t>(random.below(1 << 16));
        std::vector<float> center(features);
        for (auto& c : center) c = static_cast<float>(random.uniform(0, 1));
        std::vector<std::int32_t> index(batch);
        std::vector<std::int8_t> crop(3 * batch);
        for (std::size_t b = 0; b < batch; ++b) {
          index[b] = static_cast<std::int32_t>(random.below(images));
          crop[3 * b] = static_cast<std::int8_t>(static_cast<int>(random.below(9)) - 4);
          crop[3 * b + 1] = static_cast<std::int8_t>(static_cast<int>(random.below(9)) - 4);
          crop[3 * b + 2] = static_cast<std::int8_t>(random.below(2));
        }
        if (batch > 1) crop[0] = 127, crop[4] = -128;  // wholly outside
        DeviceArray<std::uint8_t> pixels(device(), pixel);
        DeviceArray<std::uint16_t> labels(device(), label);
        DeviceArray<std::int32_t> indices(device(), index), y(device(), batch);
        DeviceArray<std::int8_t> crops(device(), crop);
        DeviceArray<float> means(device(), center), x(device(), batch * features, NAN, per_pixel ? 0 : 1);
        DeviceArray<Bf16> narrow(device(), batch * features);
        GatherBatch a{DType::f32,     batch, features, pixels.data(), labels.data(),
                      indices.data(), 0.3f,  2.5f,     x.data(),      y.data()};
        a.height = height;
        a.width = width;
        a.channels = channels;
        a.crops = crops.data();
        if (per_pixel) a.pixel_mean = means.data();
        device().gather_batch(a);
        std::vector<double> want(batch * features);
        for (std::size_t b = 0; b < batch; ++b)
          for (std::size_t f = 0; f < features; ++f) {
            const int c = static_cast<int>(f % channels), j = static_cast<int>(f / channels % width),
                      i = static_cast<int>(f / channels / width), w = static_cast<int>(width);
            const int row = i + crop[3 * b], column = (crop[3 * b + 2] ? w - 1 - j : j) + crop[3 * b + 1];
            if (row < 0 || row >= static_cast<int>(height) || column < 0 || column >= w) continue;  // 0
            const std::size_t at = static_cast<std::size_t>((row * w + column) * static_cast<int>(channels) + c);
            const double value = pixel[static_cast<std::size_t>(index[b]) * features + at] / 255.0;
            want[b * features + f] = (value - double(per_pixel ? center[at] : 0.3f)) * 2.5;
          }
        const std::vector<float> got = x.get();
        EXPECT_TRUE(all_near(got, want, [&](std::size_t) { return 5 * epsilon<float>(); }));
        for (std::size_t b = 0; b < batch; ++b) EXPECT_EQ(y.get()[b], label[static_cast<std::size_t>(index[b])]);
        a.dtype = DType::bf16;
        a.x = narrow.data();
        device().gather_batch(a);
        std::vector<float> rounded, stored;
        for (const float v : got) rounded.push_back(to_float(to_bf16(v)));
        for (const Bf16 v : narrow.get()) stored.push_back(to_float(v));
        EXPECT_TRUE(all_same(stored, rounded));
        a.dtype = DType::f32;  // without crops: the means alone
        a.x = x.data();
        a.crops = nullptr;
        device().gather_batch(a);
        const std::vector<float> whole = x.get();
        for (std::size_t i = 0; i < whole.size(); ++i) {
          const double value = pixel[static_cast<std::size_t>(index[i / features]) * features + i % features] / 255.0;
          EXPECT_NEAR(whole[i], (value - double(per_pixel ? center[i % features] : 0.3f)) * 2.5, 5 * epsilon<float>());
        }
        a.width = width + 1;
        EXPECT_THROW(device().gather_batch(a), InternalError);
      }
}

// Known answers of the generator's authors for philox4x32 with 10 rounds.
TEST(Philox, KnownAnswers) {
  const std::uint32_t f = 0xffffffff;
  const philox::Words zeros = philox::rounds({{0, 0, 0, 0}}, 0, 0), ones = philox::rounds({{f, f, f, f}}, f, f);
  EXPECT_EQ(zeros.w[0], 0x6627e8d5u);
  EXPECT_EQ(zeros.w[3], 0x9b00dbd8u);
  EXPECT_EQ(ones.w[0], 0x408f276du);
  EXPECT_EQ(ones.w[3], 0x6d5451fdu);
  // The digits of pi, all words different: an exchange of two would show.
  const philox::Words pi = philox::rounds({{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}}, 0xa4093822, 0x299f31d0);
  EXPECT_EQ(pi.w[0], 0xd16cfe09u);
  EXPECT_EQ(pi.w[1], 0x94fdccebu);
  EXPECT_EQ(pi.w[2], 0x5001e420u);
  EXPECT_EQ(pi.w[3], 0x24126ea1u);
}

// The same bits on every backend; each number depends on its position alone.
TEST_P(Batch, RandomFills) {
  for (const Distribution distribution : {Distribution::uniform, Distribution::normal})
    for (const std::uint64_t seed : {std::uint64_t{1}, std::uint64_t{0xfedcba9876543210u}})
      for (const std::uint64_t first : {std::uint64_t{0}, std::uint64_t{1}, std::uint64_t{1} << 33})
        for (const std::size_t n : kSizes) {
          SCOPED_TRACE(fmt::format("{} seed {} first {} n={}", int(distribution), seed, first, n));
          const std::uint64_t purpose = seed * 0x9e3779b97f4a7c15u;
          std::vector<float> want(n);
          for (std::size_t i = 0; i < n; ++i) {
            const std::uint64_t at = first + i;
            const bool normal = distribution == Distribution::normal;
            const philox::Pair pair = normal ? philox::normal_pair(seed, purpose, at / 2)
                                             : philox::uniform_pair(seed, purpose, at / 2);
            const double v = at % 2 ? pair.second : pair.first;
            want[i] = static_cast<float>(normal ? 0.5 + 2.0 * v : 0.5 + (2.0 - 0.5) * v);
          }
          DeviceArray<float> x(device(), n, NAN, n % 2);
          device().random_fill({DType::f32, n, x.data(), distribution, 0.5, 2.0, seed, purpose, first});
          EXPECT_TRUE(all_same(x.get(), want));
          DeviceArray<Bf16> narrow(device(), n, Bf16{7}, (n + 1) % 2);
          device().random_fill({DType::bf16, n, narrow.data(), distribution, 0.5, 2.0, seed, purpose, first});
          const std::vector<Bf16> stored = narrow.get();
          for (std::size_t i = 0; i < n; ++i) ASSERT_EQ(stored[i], to_bf16(want[i]));
          if (n < 20000) continue;
          // Mean and variance within six standard errors.
          double sum = 0, squares = 0;
          for (const float v : want) sum += double(v), squares += double(v) * double(v);
          const double mean = sum / double(n), variance = squares / double(n) - mean * mean;
          const bool normal = distribution == Distribution::normal;
          EXPECT_NEAR(mean, normal ? 0.5 : 1.25, 6 * std::sqrt((normal ? 4 : 0.1875) / double(n)));
          EXPECT_NEAR(variance / (normal ? 4 : 0.1875), 1, 6 * std::sqrt((normal ? 2 : 0.8) / double(n)));
        }
}

GRADFLOW_TEST_ON_BACKENDS(Batch);

}  // namespace
}  // namespace gradflow::kernels::test
