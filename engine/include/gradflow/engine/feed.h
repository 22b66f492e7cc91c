// A data set on the device: batches are gathered and normalized there, from indices alone.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "gradflow/engine/augmentation.h"
#include "gradflow/engine/dataset.h"
#include "gradflow/engine/layer.h"
#include "gradflow/engine/memory.h"

namespace gradflow {

// One split of a data set, resident on the backend (as bytes: a quarter of its size as f32).
class Feed {
 public:
  // With an augmentation's pixel mean, the mean image of data.train is taken off in every load. UserError if
  // the images are too small for its crop.
  Feed(Backend& backend, const Dataset& data, const DataSplit& split, const Augmentation& augmentation = {});

  std::size_t count() const noexcept { return count_; }
  // Fills x [batch, features] and labels i32 [batch] with the samples at `indices`, each below count().
  // indices.size() is the batch of x.
  void load(std::span<const std::int32_t> indices, const Tensor& x, const Tensor& labels);
  // The same, with the images shifted and mirrored as the augmentation says for this step of a run.
  void load_augmented(std::span<const std::int32_t> indices, const Tensor& x, const Tensor& labels,
                      std::uint64_t seed, std::uint64_t step);
  // Samples first .. first + batch - 1, in storage order.
  void load_range(std::size_t first, const Tensor& x, const Tensor& labels);

 private:
  void gather(std::span<const std::int32_t> indices, const Tensor& x, const Tensor& labels, bool moved);

  Backend* backend_;
  ImageShape shape_;
  Augmentation augmentation_;
  std::size_t count_, features_;
  float mean_, inv_std_;
  DeviceMemory images_, labels_, indices_, pixel_mean_, device_crops_;
  std::vector<std::int8_t> crops_;
  std::vector<std::int32_t> range_;
};

}  // namespace gradflow
