// Batches gathered from a data set that lies on the device. The rules of every call stand in kernels/backend.h.
#pragma once

#include <cstddef>
#include <cstdint>

#include "gradflow/kernels/dtype.h"

namespace gradflow::kernels {

struct GatherBatch {  // x[b,f] = (images[indices[b],f]/255 - mean) * inv_std; y[b] = labels[indices[b]]
  DType dtype = DType::f32;
  std::size_t batch = 0, features = 0;
  const std::uint8_t* images = nullptr;   // [samples, features]
  const std::uint16_t* labels = nullptr;  // [samples]: at most 65,536 classes
  const std::int32_t* indices = nullptr;  // [batch], each in [0, samples)
  float mean = 0, inv_std = 1;
  void* x = nullptr;
  std::int32_t* y = nullptr;

  // Images as [height, width, channels], features in all: then each sample may be shifted and mirrored,
  //   x[b, i, j, c] = the value above at image pixel (i + dy, j' + dx, c), j' = flip ? width - 1 - j : j,
  // and 0 where that lies outside: as if the image had been padded after the mean was taken from it (He et al.
  // 2015: dy and dx in [-4, 4], flip in {0, 1}).
  std::size_t height = 0, width = 0, channels = 0;  // channels = 0: no augmentation
  const std::int8_t* crops = nullptr;               // [batch, 3]: dy, dx, flip; null: none, whatever the rest
  const float* pixel_mean = nullptr;                // [features], takes the place of `mean` for each feature
};

}  // namespace gradflow::kernels
