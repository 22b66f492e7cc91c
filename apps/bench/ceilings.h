// What the device can do at best, measured here and now with the library's own operations.
#pragma once

#include "gradflow/kernels/backend.h"

namespace gradflow::app {

struct Ceilings {
  double matmul_flops = 0;  // per second: product of 1024 x 1024 matrices (4096 on a GPU) of the type asked for
  double triad_bytes =
      0;  // per second: y = a + s * b over arrays far larger than any cache; 3 arrays counted
};

// f64 is measured as f32.
Ceilings measure_ceilings(kernels::Backend& backend, DType dtype);

}  // namespace gradflow::app
