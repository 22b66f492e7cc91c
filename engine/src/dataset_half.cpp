#include <fmt/format.h>

#include "gradflow/engine/dataset.h"
#include "gradflow/engine/text.h"
#include "gradflow/kernels/error.h"

namespace gradflow {
namespace {

DataSplit halved_split(const DataSplit& split, const ImageShape& from, const ImageShape& to) {
  DataSplit half{.images = std::vector<std::uint8_t>(split.count() * to.features()), .labels = split.labels};
  const std::size_t channels = from.channels, row = from.width * channels;
  std::uint8_t* out = half.images.data();
  for (std::size_t n = 0; n < split.count(); ++n) {
    const std::uint8_t* const image = split.images.data() + n * from.features();
    for (std::size_t y = 0; y < to.height; ++y)
      for (std::size_t x = 0; x < to.width; ++x)
        for (std::size_t c = 0; c < channels; ++c) {
          const std::uint8_t* const p = image + 2 * y * row + 2 * x * channels + c;
          *out++ = static_cast<std::uint8_t>((p[0] + p[channels] + p[row] + p[row + channels] + 2) / 4);
        }
  }
  return half;
}

}  // namespace

Dataset halved_images(const Dataset& data) {
  if (data.shape.height < 2 || data.shape.width < 2)
    throw UserError(fmt::format("data {}: images of {}x{} pixels cannot be halved", quote(data.name), data.shape.height,
                                data.shape.width));
  Dataset half;
  half.name = "half:" + data.name;
  half.shape = {data.shape.height / 2, data.shape.width / 2, data.shape.channels};
  half.classes = data.classes;
  half.train = halved_split(data.train, data.shape, half.shape);
  half.test = halved_split(data.test, data.shape, half.shape);
  normalize_inputs(half);
  return half;
}

}  // namespace gradflow
