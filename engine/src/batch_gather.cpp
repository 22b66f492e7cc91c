#include "batch_gather.h"

#include <fmt/format.h>

#include "gradflow/kernels/error.h"

namespace gradflow {

BatchGather::BatchGather(Backend& backend, const Dataset& data, const Augmentation& augmentation)
    : backend_(&backend),
      shape_(data.shape),
      augmentation_(augmentation),
      features_(data.shape.features()),
      mean_(static_cast<float>(data.mean)),
      inv_std_(static_cast<float>(data.inv_std)) {
  check_fits(augmentation, data.shape);
  if (!augmentation.pixel_mean) return;
  const std::vector<float>& mean = data.mean_image;
  if (mean.size() != features_)
    throw InternalError(fmt::format("data {}: a mean image of {} pixels for images of {}", data.name, mean.size(), features_));
  pixel_mean_ = DeviceMemory(backend, mean.size() * sizeof(float));
  backend.copy_in(pixel_mean_.data(), mean.data(), mean.size() * sizeof(float));
}

void BatchGather::check(std::size_t samples, const Tensor& x, const Tensor& labels) const {
  const std::size_t batch = x.shape().rank() ? static_cast<std::size_t>(x.shape()[0]) : 0;
  if (samples != batch || labels.elements() != batch || x.elements() != batch * features_)
    throw UserError(fmt::format("{} samples of {} features do not fit x {} and labels {}", samples, features_,
                                x.spec.to_string(), labels.spec.to_string()));
}

void BatchGather::run(const Samples& samples, const Tensor& x, const Tensor& labels) const {
  kernels::GatherBatch g{.dtype = x.dtype(),
                         .batch = static_cast<std::size_t>(x.shape()[0]),
                         .features = features_,
                         .images = samples.images,
                         .labels = samples.labels,
                         .indices = samples.indices,
                         .mean = mean_,
                         .inv_std = inv_std_,
                         .x = x.data,
                         .y = labels.as<std::int32_t>()};
  if (augmentation_.pixel_mean) g.pixel_mean = pixel_mean_.as<float>();
  if (samples.crops) {
    g.height = shape_.height, g.width = shape_.width, g.channels = shape_.channels;
    g.crops = samples.crops;
  }
  backend_->gather_batch(g);
}

}  // namespace gradflow
