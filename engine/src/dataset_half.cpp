#include <fmt/format.h>

#include <memory>
#include <utility>

#include "gradflow/engine/dataset.h"
#include "gradflow/engine/text.h"
#include "gradflow/kernels/error.h"
#include "image_source.h"

namespace gradflow {
namespace {

// Each pixel the rounded mean of 2 x 2.
void halve(const std::uint8_t* image, const ImageShape& from, std::uint8_t* out) {
  const std::size_t channels = from.channels, row = from.width * channels;
  for (std::size_t y = 0; y < from.height / 2; ++y)
    for (std::size_t x = 0; x < from.width / 2; ++x)
      for (std::size_t c = 0; c < channels; ++c) {
        const std::uint8_t* const p = image + 2 * y * row + 2 * x * channels + c;
        *out++ = static_cast<std::uint8_t>((p[0] + p[channels] + p[row] + p[row + channels] + 2) / 4);
      }
}

class HalvedSource final : public ImageSource {
 public:
  HalvedSource(std::shared_ptr<const ImageSource> whole, const ImageShape& shape)
      : ImageSource(shape, whole->count()), whole_(std::move(whole)) {}

  void read(std::size_t first, std::span<std::uint8_t> out) const override {
    std::vector<std::uint8_t> image(whole_->shape().features());
    for (; !out.empty(); ++first, out = out.subspan(shape().features())) {
      whole_->read(first, image);
      halve(image.data(), whole_->shape(), out.data());
    }
  }

 private:
  std::shared_ptr<const ImageSource> whole_;
};

DataSplit halved_split(const DataSplit& split, const ImageShape& from, const ImageShape& to) {
  DataSplit half{.images = {}, .labels = split.labels};
  if (split.in_files) {
    half.in_files = std::make_shared<HalvedSource>(split.in_files, to);
    return half;
  }
  half.images.resize(split.count() * to.features());
  for (std::size_t n = 0; n < split.count(); ++n)
    halve(split.images.data() + n * from.features(), from, half.images.data() + n * to.features());
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
  if (half.train.count() != 0) normalize_inputs(half);  // an outline has no images
  return half;
}

}  // namespace gradflow
