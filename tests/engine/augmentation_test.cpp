#include "gradflow/engine/augmentation.h"

#include <gtest/gtest.h>

#include <map>

#include "engine/temp_dir.h"
#include "gradflow/engine/device.h"
#include "gradflow/engine/feed.h"

namespace gradflow {
namespace {

using test::has;
using test::user_error;

TEST(Augmentation, TextsAreReadStrictly) {
  EXPECT_FALSE(parse_augmentation("none").moves());
  const Augmentation a = parse_augmentation("standard");
  EXPECT_EQ(a.crop, 4);
  EXPECT_TRUE(a.flip && a.pixel_mean);
  const Augmentation b = parse_augmentation("standard:crop=0,flip=off,mean=one");
  EXPECT_FALSE(b.moves() || b.pixel_mean);
  const auto error_of = [](const char* text) { return user_error([&] { parse_augmentation(text); }); };
  EXPECT_TRUE(has(error_of("standrad"), "did you mean 'standard'?"));
  EXPECT_TRUE(has(error_of("standard:crp=4"), "did you mean 'crop'?"));
  EXPECT_TRUE(has(error_of("standard:crop=128"), "crop=128"));
  EXPECT_TRUE(has(error_of("standard:crop=-1"), "crop=-1"));
  EXPECT_TRUE(has(error_of("none:crop=1"), "crop"));
}

TEST(Augmentation, AShiftMustLeaveSomethingToSee) {
  const Augmentation a = parse_augmentation("standard:crop=4");
  check_fits(a, {5, 5, 1});
  EXPECT_TRUE(has(user_error([&] {
                    check_fits(a, {5, 4, 3});
                  }),
                  "images of 5x4 out of sight; it must be below 4"));
  check_fits(parse_augmentation("standard:crop=0"), {1, 1, 256});
}

// Every shift and both orientations are equally likely, and independent: 9 * 9 * 2 kinds, 20,000 samples,
// chi-square with 161 degrees of freedom, of which 1e-6 of all seeds exceed 260.
TEST(Augmentation, DrawsEvenly) {
  const Augmentation a = parse_augmentation("standard");
  std::map<std::vector<int>, double> seen;
  std::vector<std::int8_t> crops(3 * 200);
  for (std::uint64_t step = 0; step < 100; ++step) {
    draw_crops(a, 1, step, crops);
    for (std::size_t b = 0; b < 200; ++b) ++seen[{crops[3 * b], crops[3 * b + 1], crops[3 * b + 2]}];
  }
  ASSERT_EQ(seen.size(), 162u);
  double chi_square = 0;
  const double expected = 20000.0 / 162;
  for (const auto& [kind, count] : seen) {
    EXPECT_LE(std::max(std::abs(kind[0]), std::abs(kind[1])), 4);
    EXPECT_TRUE(kind[2] == 0 || kind[2] == 1);
    chi_square += (count - expected) * (count - expected) / expected;
  }
  EXPECT_LT(chi_square, 260);
}

TEST(Augmentation, DependsOnSeedStepAndPlaceOnly) {
  const Augmentation a = parse_augmentation("standard");
  std::vector<std::int8_t> first(60), again(30), other(30);
  draw_crops(a, 5, 7, first);
  draw_crops(a, 5, 7, again);
  EXPECT_TRUE(std::equal(again.begin(), again.end(), first.begin()));
  draw_crops(a, 5, 8, other);
  EXPECT_NE(again, other);
  draw_crops(a, 6, 7, other);
  EXPECT_NE(again, other);
}

Dataset little_images() {
  Dataset d;
  d.name = "little";
  d.shape = {5, 4, 2};
  d.classes = 3;
  for (int i = 0; i < 6; ++i) {
    for (std::size_t f = 0; f < d.shape.features(); ++f)
      d.train.images.push_back(static_cast<std::uint8_t>((37 * i + 11 * static_cast<int>(f) + i * i) % 256));
    d.train.labels.push_back(static_cast<std::uint16_t>(i % 3));
  }
  d.test = d.train;
  for (std::uint8_t& v : d.test.images) v = static_cast<std::uint8_t>(255 - v);
  normalize_inputs(d);
  return d;
}

// The definition, pixel by pixel.
TEST(Augmentation, LoadsShiftedMirroredCenteredImages) {
  const auto device = open_device("cpu");
  const Dataset d = little_images();
  const auto [h, w, c] = d.shape;
  for (const char* text :
       {"none", "standard:crop=2", "standard:crop=1,flip=off,mean=one", "standard:crop=0"}) {
    SCOPED_TRACE(text);
    const Augmentation a = parse_augmentation(text);
    Feed feed(*device, d, d.train, a), held_out(*device, d, d.test, a);
    const std::vector<std::int32_t> indices{4, 0, 5, 2};
    const TensorSpec x_spec{{4, static_cast<std::int64_t>(d.shape.features())}}, label_spec{{4}, DType::i32};
    std::vector<float> x(4 * d.shape.features());
    std::vector<std::int32_t> labels(4);
    const auto center = [&](std::size_t f) {
      if (!a.pixel_mean) return d.mean;
      double sum = 0;
      for (std::size_t i = 0; i < d.train.count(); ++i) sum += d.train.images[i * d.shape.features() + f];
      return sum / static_cast<double>(d.train.count()) / 255;
    };
    // Three roundings of numbers below 10.
    const double tolerance = 10 * 3 * 6e-8;

    feed.load_augmented(indices, Tensor{x.data(), x_spec}, Tensor{labels.data(), label_spec}, 3, 11);
    std::vector<std::int8_t> crops(12);
    draw_crops(a, 3, 11, crops);
    for (std::size_t b = 0; b < 4; ++b) {
      EXPECT_EQ(labels[b], d.train.labels[static_cast<std::size_t>(indices[b])]);
      for (std::size_t i = 0; i < h; ++i)
        for (std::size_t j = 0; j < w; ++j)
          for (std::size_t k = 0; k < c; ++k) {
            const std::int64_t row = static_cast<std::int64_t>(i) + crops[3 * b];
            const std::int64_t place =
                static_cast<std::int64_t>(crops[3 * b + 2] ? w - 1 - j : j) + crops[3 * b + 1];
            double want = 0;
            if (row >= 0 && row < static_cast<std::int64_t>(h) && place >= 0 &&
                place < static_cast<std::int64_t>(w)) {
              const std::size_t f =
                  (static_cast<std::size_t>(row) * w + static_cast<std::size_t>(place)) * c + k;
              const std::size_t at = static_cast<std::size_t>(indices[b]) * d.shape.features() + f;
              want = (d.train.images[at] / 255.0 - center(f)) * d.inv_std;
            }
            const double got = x[((b * h + i) * w + j) * c + k];
            EXPECT_TRUE(std::fabs(got - want) <= tolerance)
                << b << " " << i << " " << j << " " << k << ": " << got;
          }
    }

    held_out.load(indices, Tensor{x.data(), x_spec}, Tensor{labels.data(), label_spec});
    for (std::size_t b = 0; b < 4; ++b)
      for (std::size_t f = 0; f < d.shape.features(); ++f) {
        const std::size_t at = static_cast<std::size_t>(indices[b]) * d.shape.features() + f;
        const double want = (d.test.images[at] / 255.0 - center(f)) * d.inv_std;
        EXPECT_TRUE(std::fabs(x[b * d.shape.features() + f] - want) <= tolerance) << b << " " << f;
      }
  }
}

}  // namespace
}  // namespace gradflow
