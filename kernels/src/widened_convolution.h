// bf16 convolutions where a vendor's library has none: operands are widened into workspace, the convolution is one of f32
// numbers, and its images are rounded once.
#pragma once

#include <functional>
#include <memory>

#include "gradflow/kernels/backend.h"

namespace gradflow::kernels {

// `desc` is of bf16, `wide` the same with f32 in its place; `cast` is the backend's. The gradient of the weights is wide's own.
// `workspace` of the calls must lie at a multiple of 256, as it then does for `wide`.
std::unique_ptr<Convolution> make_widened_convolution(const ConvolutionDesc& desc, std::shared_ptr<Convolution> wide,
                                                      std::function<void(const Cast&)> cast);

}  // namespace gradflow::kernels
