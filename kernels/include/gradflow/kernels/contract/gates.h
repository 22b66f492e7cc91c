// What opens and closes the two paths of a residual addition. The rules of every call stand in kernels/backend.h.
#pragma once

namespace gradflow::kernels {

// Gates of a residual addition, four floats in device memory. 1 is the ordinary network; 0 removes a
// path. Forward and backward are separate so that a path can be cut in one direction only.
struct Gates {
  float forward_skip = 1, forward_branch = 1, backward_skip = 1, backward_branch = 1;
};

}  // namespace gradflow::kernels
