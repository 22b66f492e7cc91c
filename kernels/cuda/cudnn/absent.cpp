// In the place of cuDNN where it was not found at configure time.
#include "gradflow/kernels/error.h"
#include "kernels/cuda/convolution.h"

namespace gradflow::kernels::cuda {

std::unique_ptr<ConvolutionLibrary> open_convolution_library(DeviceQueue&) {
  throw UserError(
      "this build has no convolutions on CUDA: cuDNN was not found when it was configured; install cuDNN, "
      "point "
      "CUDNN_ROOT to it and build again, or use --device cpu");
}

}  // namespace gradflow::kernels::cuda
