#include "gradflow/engine/feed.h"

#include <fmt/format.h>

#include <numeric>

#include "gradflow/kernels/error.h"

namespace gradflow {

Feed::Feed(Backend& backend, const Dataset& data, const DataSplit& split, const Augmentation& augmentation)
    : backend_(&backend),
      shape_(data.shape),
      augmentation_(augmentation),
      count_(split.count()),
      features_(data.shape.features()),
      mean_(static_cast<float>(data.mean)),
      inv_std_(static_cast<float>(data.inv_std)),
      images_(backend, split.images.size()),
      labels_(backend, split.labels.size()) {
  backend.copy_in(images_.data(), split.images.data(), split.images.size());
  backend.copy_in(labels_.data(), split.labels.data(), split.labels.size());
  check_fits(augmentation, data.shape);
  if (augmentation.pixel_mean) {
    const std::vector<float> mean = mean_image(data.shape, data.train);
    pixel_mean_ = DeviceMemory(backend, mean.size() * sizeof(float));
    backend.copy_in(pixel_mean_.data(), mean.data(), mean.size() * sizeof(float));
  }
}

void Feed::load(std::span<const std::int32_t> indices, const Tensor& x, const Tensor& labels) {
  gather(indices, x, labels, false);
}

void Feed::load_augmented(std::span<const std::int32_t> indices, const Tensor& x, const Tensor& labels,
                          std::uint64_t seed, std::uint64_t step) {
  if (!augmentation_.moves()) return gather(indices, x, labels, false);
  crops_.resize(3 * indices.size());
  draw_crops(augmentation_, seed, step, crops_);
  if (device_crops_.bytes() < crops_.size()) device_crops_ = DeviceMemory(*backend_, crops_.size());
  backend_->copy_in(device_crops_.data(), crops_.data(), crops_.size());
  gather(indices, x, labels, true);
}

void Feed::gather(std::span<const std::int32_t> indices, const Tensor& x, const Tensor& labels, bool moved) {
  const std::size_t batch = x.shape().rank() ? static_cast<std::size_t>(x.shape()[0]) : 0;
  if (indices.size() != batch || labels.elements() != batch || x.elements() != batch * features_)
    throw UserError(fmt::format("{} samples of {} features do not fit x {} and labels {}", indices.size(),
                                features_, x.spec.to_string(), labels.spec.to_string()));
  if (indices_.bytes() < batch * sizeof(std::int32_t))
    indices_ = DeviceMemory(*backend_, batch * sizeof(std::int32_t));
  backend_->copy_in(indices_.data(), indices.data(), batch * sizeof(std::int32_t));
  kernels::GatherBatch g{.dtype = x.dtype(),
                         .batch = batch,
                         .features = features_,
                         .images = images_.as<std::uint8_t>(),
                         .labels = labels_.as<std::uint8_t>(),
                         .indices = indices_.as<std::int32_t>(),
                         .mean = mean_,
                         .inv_std = inv_std_,
                         .x = x.data,
                         .y = labels.as<std::int32_t>()};
  if (augmentation_.pixel_mean) g.pixel_mean = pixel_mean_.as<float>();
  if (moved) {
    g.height = shape_.height, g.width = shape_.width, g.channels = shape_.channels;
    g.crops = device_crops_.as<std::int8_t>();
  }
  backend_->gather_batch(g);
}

void Feed::load_range(std::size_t first, const Tensor& x, const Tensor& labels) {
  const std::size_t batch = x.shape().rank() ? static_cast<std::size_t>(x.shape()[0]) : 0;
  if (first + batch > count_)
    throw UserError(fmt::format("samples {} to {} of {}", first, first + batch, count_));
  range_.resize(batch);
  std::iota(range_.begin(), range_.end(), static_cast<std::int32_t>(first));
  load(range_, x, labels);
}

}  // namespace gradflow
