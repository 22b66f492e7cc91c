// Convolutions by cuDNN; files in cudnn/ alone see its headers. Where cuDNN was not found when the module was
// built, cudnn/absent.cpp stands in and says so to whoever asks for a convolution.
#pragma once

#include <memory>
#include <string>

#include "gradflow/kernels/backend.h"
#include "kernels/cuda/device_queue.h"

namespace gradflow::kernels::cuda {

class ConvolutionLibrary {
 public:
  virtual ~ConvolutionLibrary() = default;
  virtual std::shared_ptr<Convolution> prepare(const ConvolutionDesc& desc, bool tf32) = 0;
};

// Opened by the first convolution: starting cuDNN costs a few hundred milliseconds and memory on the device.
// `queue` must outlive the library and its convolutions.
std::unique_ptr<ConvolutionLibrary> open_convolution_library(DeviceQueue& queue);

}  // namespace gradflow::kernels::cuda
