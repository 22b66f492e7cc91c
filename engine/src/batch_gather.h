// From pixels on the device to a batch: what every way to a batch shares, so that all give the same bits.
#pragma once

#include "gradflow/engine/augmentation.h"
#include "gradflow/engine/dataset.h"
#include "gradflow/engine/layer.h"
#include "gradflow/engine/memory.h"

namespace gradflow {

class BatchGather {
 public:
  // Keeps data.mean_image on the device, where the augmentation wants one. UserError if the images
  // are too small for its crop.
  BatchGather(Backend& backend, const Dataset& data, const Augmentation& augmentation);

  struct Samples {  // device memory
    const std::uint8_t* images = nullptr;
    const std::uint16_t* labels = nullptr;
    const std::int32_t* indices = nullptr;
    const std::int8_t* crops = nullptr;  // null: not moved
  };
  void run(const Samples& samples, const Tensor& x, const Tensor& labels) const;

  std::size_t features() const noexcept { return features_; }
  const Augmentation& augmentation() const noexcept { return augmentation_; }
  Backend& backend() const noexcept { return *backend_; }
  // UserError unless x [batch, ...] and labels [batch] take `samples` samples.
  void check(std::size_t samples, const Tensor& x, const Tensor& labels) const;

 private:
  Backend* backend_;
  ImageShape shape_;
  Augmentation augmentation_;
  std::size_t features_;
  float mean_, inv_std_;
  DeviceMemory pixel_mean_;
};

}  // namespace gradflow
