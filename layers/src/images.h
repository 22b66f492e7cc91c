// What layers over images check alike.
#pragma once

#include <fmt/format.h>

#include "gradflow/engine/layer.h"
#include "gradflow/kernels/error.h"

namespace gradflow {

inline const TensorSpec& image_input(std::span<const TensorSpec> inputs, std::string_view what) {
  if (inputs.size() != 1) throw UserError(fmt::format("{} inputs: {} has 1", inputs.size(), what));
  if (inputs[0].shape.rank() != 4)
    throw UserError(fmt::format("input {}: {} takes images [batch, height, width, channels]",
                                inputs[0].to_string(), what));
  return inputs[0];
}

// Throws unless a window of this kernel and padding fits into the image at least once.
inline void require_fit(const TensorSpec& x, std::int64_t kernel_h, std::int64_t kernel_w, std::int64_t pad_h,
                        std::int64_t pad_w) {
  const std::int64_t height = x.shape[1] + 2 * pad_h, width = x.shape[2] + 2 * pad_w;
  if (height >= kernel_h && width >= kernel_w && x.shape[1] > 0 && x.shape[2] > 0) return;
  throw UserError(fmt::format(
      "a window of {}x{} does not fit into the {}x{} image{}: nothing would be left; larger images or fewer "
      "strides are needed",
      kernel_h, kernel_w, x.shape[1], x.shape[2],
      pad_h || pad_w ? fmt::format(" padded by {}x{}", pad_h, pad_w) : ""));
}

}  // namespace gradflow
