#include <string>

#include "gradflow/kernels/backend.h"
#include "gradflow/kernels/error.h"

namespace gradflow::kernels {

void require_convolution(const ConvolutionDesc& d) {
  const bool sound = d.batch >= 0 && d.height >= 0 && d.width >= 0 && d.channels > 0 && d.outputs > 0 &&
                     d.kernel_h > 0 && d.kernel_w > 0 && d.stride_h > 0 && d.stride_w > 0 && d.pad_h >= 0 &&
                     d.pad_w >= 0 && d.groups > 0 && d.channels % d.groups == 0 &&
                     d.outputs % d.groups == 0 && d.out_height() > 0 && d.out_width() > 0;
  if (!sound)
    throw InternalError("a convolution that cannot be: " + std::to_string(d.channels) + " channels of " +
                        std::to_string(d.height) + "x" + std::to_string(d.width) + ", " +
                        std::to_string(d.outputs) + " outputs, window " + std::to_string(d.kernel_h) + "x" +
                        std::to_string(d.kernel_w) + ", " + std::to_string(d.groups) + " groups");
}

}  // namespace gradflow::kernels
