// Synthetic data: each class has a prototype, an example is its prototype plus noise.
//
//   pixel = round(128 + 48 (a p + b z)),  p: prototype, mean square 1;  z: normal;  a^2 + b^2 = 1
//
// clipped to 0..255. Prototypes are constant on patches of 4 x 4 pixels where the image is large enough,
// so that convolutions find something local, too. How hard it is depends on the distance between two
// prototypes in units of the noise, sqrt(2 features) a / b; it is set to 5.5 / noise, whatever the size
// of the image. With ten classes and noise 1 the best possible (linear) rule is right in about 97%:
// each of the nine others wins with chance Q(5.5 / 2) = 0.3%.
#include "dataset_synthetic.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "gradflow/engine/random.h"

namespace gradflow {
namespace {

constexpr double kDistance = 5.5;
constexpr double kSpread = 48;  // standard deviation of a pixel, in levels: 2.6 of them reach the ends
constexpr std::int64_t kMaxBytes = std::int64_t{1} << 34;

// [classes, height, width, channels], each prototype with mean square 1.
std::vector<float> make_prototypes(const ImageShape& shape, std::size_t classes, std::uint64_t seed) {
  const std::size_t patch = std::min(shape.height, shape.width) >= 8 ? 4 : 1;
  const std::size_t rows = (shape.height + patch - 1) / patch, columns = (shape.width + patch - 1) / patch;
  const RandomStream stream(seed, "synthetic/prototypes");
  std::vector<float> prototypes(classes * shape.features());
  for (std::size_t k = 0; k < classes; ++k) {
    float* prototype = prototypes.data() + k * shape.features();
    double squares = 0;
    std::size_t i = 0;
    for (std::size_t y = 0; y < shape.height; ++y) {
      for (std::size_t x = 0; x < shape.width; ++x) {
        const std::size_t cell = ((k * rows + y / patch) * columns + x / patch) * shape.channels;
        for (std::size_t c = 0; c < shape.channels; ++c, ++i) {
          const double value = stream.normal(cell + c);
          prototype[i] = static_cast<float>(value);
          squares += value * value;
        }
      }
    }
    const auto scale = static_cast<float>(std::sqrt(static_cast<double>(i) / squares));
    for (std::size_t j = 0; j < i; ++j) prototype[j] *= scale;
  }
  return prototypes;
}

DataSplit make_split(std::size_t count, std::size_t features, std::size_t classes,
                     const std::vector<float>& prototypes, double noise, const RandomStream& stream) {
  // a : b = kDistance / noise / sqrt(2 features) : 1, or 1 : 0 without noise.
  const double signal = kDistance / std::sqrt(2.0 * static_cast<double>(features));
  const double length = std::hypot(signal, noise);
  const auto a = static_cast<float>(kSpread * signal / length);
  const double b = kSpread * noise / length;
  DataSplit split;
  split.images.resize(count * features);
  split.labels.resize(count);
  std::vector<float> row;
  constexpr std::size_t kRowsAtOnce = 256;
  for (std::size_t begin = 0; begin < count; begin += kRowsAtOnce) {
    const std::size_t rows = std::min(kRowsAtOnce, count - begin);
    row.resize(rows * features);
    stream.fill_normal(row, 128.0, b, begin * features);
    for (std::size_t r = 0; r < rows; ++r) {
      const std::size_t label = (begin + r) % classes;  // as many of each class as can be
      split.labels[begin + r] = static_cast<std::uint8_t>(label);
      const float* prototype = prototypes.data() + label * features;
      std::uint8_t* image = split.images.data() + (begin + r) * features;
      for (std::size_t i = 0; i < features; ++i) {
        const float level = std::floor(row[r * features + i] + a * prototype[i] + 0.5f);
        image[i] = static_cast<std::uint8_t>(std::clamp(level, 0.0f, 255.0f));
      }
    }
  }
  return split;
}

}  // namespace

Dataset make_synthetic(SpecReader& reader) {
  constexpr std::int64_t kMaxSide = std::int64_t{1} << 20;
  const std::int64_t n = reader.get_int("n", 8192, 1, 1 << 30);
  const std::int64_t test = reader.get_int("test", 2048, 1, 1 << 30);
  const bool has_image = reader.has("height") || reader.has("width") || reader.has("channels");
  if (reader.has("features") && has_image)
    reader.reject("'features' cannot stand beside 'height', 'width' or 'channels'");
  const std::int64_t features = reader.get_int("features", 784, 1, kMaxSide);
  const std::int64_t height = reader.get_int("height", 1, 1, kMaxSide);
  const std::int64_t width = reader.get_int("width", 1, 1, kMaxSide);
  const std::int64_t channels = reader.get_int("channels", has_image ? 1 : features, 1, kMaxSide);
  const std::int64_t classes = reader.get_int("classes", 10, 2, 256);
  const double noise = reader.get_double("noise", 1.0, 0.0, 1e6);
  const std::int64_t seed = reader.get_int("seed", 1, 0);
  // Stepwise, as the product of all could overflow.
  if (height > kMaxBytes / width || height * width > kMaxBytes / channels ||
      n + test + classes > kMaxBytes / (height * width * channels))
    reader.reject("this would take more than 16 GiB");
  reader.finish();

  Dataset data;
  data.name = reader.text();
  data.shape = {static_cast<std::size_t>(height), static_cast<std::size_t>(width),
                static_cast<std::size_t>(channels)};
  data.classes = static_cast<int>(classes);
  const auto k = static_cast<std::size_t>(classes);
  const auto s = static_cast<std::uint64_t>(seed);
  const std::vector<float> prototypes = make_prototypes(data.shape, k, s);
  const auto make = [&](std::int64_t count, const char* purpose) {
    return make_split(static_cast<std::size_t>(count), data.shape.features(), k, prototypes, noise,
                      RandomStream(s, purpose));
  };
  data.train = make(n, "synthetic/train");
  data.test = make(test, "synthetic/test");
  normalize_inputs(data);
  return data;
}

}  // namespace gradflow
