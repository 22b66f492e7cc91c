// A data set on the device: batches are gathered and normalized there, from indices alone.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "gradflow/engine/dataset.h"
#include "gradflow/engine/memory.h"
#include "gradflow/engine/layer.h"

namespace gradflow {

// One split of a data set, resident on the backend (as bytes: a quarter of its size as f32).
class Feed {
 public:
  Feed(Backend& backend, const Dataset& data, const DataSplit& split);

  std::size_t count() const noexcept { return count_; }
  // Fills x [batch, features] and labels i32 [batch] with the samples at `indices`, each below count().
  // indices.size() is the batch of x.
  void load(std::span<const std::int32_t> indices, const Tensor& x, const Tensor& labels);
  // Samples first .. first + batch - 1, in storage order.
  void load_range(std::size_t first, const Tensor& x, const Tensor& labels);

 private:
  Backend* backend_;
  std::size_t count_, features_;
  float mean_, inv_std_;
  DeviceMemory images_, labels_, indices_;
  std::vector<std::int32_t> range_;
};

}  // namespace gradflow
