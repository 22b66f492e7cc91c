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

// What the classes look like, kept once a patch: the image's pixel i is cell cell_of[i].
struct Prototypes {
  std::vector<float> cells;  // [classes, cells of an image], each image with mean square 1
  std::vector<std::uint32_t> cell_of;
  std::size_t per_image = 0;
};

std::size_t patch_side(const ImageShape& shape) { return std::min(shape.height, shape.width) >= 8 ? 4 : 1; }

std::size_t cells_of(const ImageShape& shape) {
  const std::size_t patch = patch_side(shape);
  return ((shape.height + patch - 1) / patch) * ((shape.width + patch - 1) / patch) * shape.channels;
}

Prototypes make_prototypes(const ImageShape& shape, std::size_t classes, std::uint64_t seed) {
  const std::size_t patch = patch_side(shape), columns = (shape.width + patch - 1) / patch;
  Prototypes p{.cells = {}, .cell_of = {}, .per_image = cells_of(shape)};
  p.cell_of.reserve(shape.features());
  for (std::size_t y = 0; y < shape.height; ++y)
    for (std::size_t x = 0; x < shape.width; ++x)
      for (std::size_t c = 0; c < shape.channels; ++c)
        p.cell_of.push_back(static_cast<std::uint32_t>((y / patch * columns + x / patch) * shape.channels + c));
  const RandomStream stream(seed, "synthetic/prototypes");
  p.cells.reserve(classes * p.per_image);
  std::vector<double> values(p.per_image);
  for (std::size_t k = 0; k < classes; ++k) {
    stream.fill_normal(values, 0.0, 1.0, k * p.per_image);
    double squares = 0;
    for (const std::uint32_t cell : p.cell_of) squares += values[cell] * values[cell];
    const auto scale = static_cast<float>(std::sqrt(static_cast<double>(shape.features()) / squares));
    for (const double value : values) p.cells.push_back(static_cast<float>(value) * scale);
  }
  return p;
}

DataSplit make_split(std::size_t count, std::size_t features, std::size_t classes, const Prototypes& prototypes,
                     double noise, const RandomStream& stream) {
  // a : b = kDistance / noise / sqrt(2 features) : 1, or 1 : 0 without noise.
  const double signal = kDistance / std::sqrt(2.0 * static_cast<double>(features));
  const double length = std::hypot(signal, noise);
  const auto a = static_cast<float>(kSpread * signal / length);
  const double b = kSpread * noise / length;
  DataSplit split;
  split.images.resize(count * features);
  split.labels.resize(count);
  std::vector<float> row;
  const std::size_t rows_at_once = std::clamp<std::size_t>((std::size_t{1} << 24) / features, 1, 256);
  for (std::size_t begin = 0; begin < count; begin += rows_at_once) {
    const std::size_t rows = std::min(rows_at_once, count - begin);
    row.resize(rows * features);
    stream.fill_normal(row, 128.0, b, begin * features);
    for (std::size_t r = 0; r < rows; ++r) {
      const std::size_t label = (begin + r) % classes;  // as many of each class as can be
      split.labels[begin + r] = static_cast<std::uint16_t>(label);
      const float* prototype = prototypes.cells.data() + label * prototypes.per_image;
      std::uint8_t* image = split.images.data() + (begin + r) * features;
      for (std::size_t i = 0; i < features; ++i) {
        const float level = std::floor(row[r * features + i] + a * prototype[prototypes.cell_of[i]] + 0.5f);
        image[i] = static_cast<std::uint8_t>(std::clamp(level, 0.0f, 255.0f));
      }
    }
  }
  return split;
}

}  // namespace

Dataset make_synthetic(SpecReader& reader, bool make_images) {
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
  const std::int64_t classes = reader.get_int("classes", 10, 2, kMaxClasses);
  const double noise = reader.get_double("noise", 1.0, 0.0, 1e6);
  const std::int64_t seed = reader.get_int("seed", 1, 0);
  Dataset data;
  data.shape = {static_cast<std::size_t>(height), static_cast<std::size_t>(width),
                static_cast<std::size_t>(channels)};
  const std::int64_t used = std::min(classes, std::max(n, test));  // a class without an example needs no prototype
  const auto fits = [&] {  // stepwise, as the product of all could overflow
    if (height > kMaxBytes / width || height * width > kMaxBytes / channels) return false;
    const std::int64_t prototypes = 4 * used * static_cast<std::int64_t>(cells_of(data.shape));
    return prototypes <= kMaxBytes && n + test + 4 <= (kMaxBytes - prototypes) / (height * width * channels);
  };
  if (!fits()) reader.reject("this would take more than 16 GiB");
  reader.finish();

  data.name = reader.text();
  data.classes = static_cast<int>(classes);
  if (!make_images) return data;
  const auto k = static_cast<std::size_t>(classes);
  const auto s = static_cast<std::uint64_t>(seed);
  const Prototypes prototypes = make_prototypes(data.shape, static_cast<std::size_t>(used), s);
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
