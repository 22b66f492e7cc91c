// What is said where a device cannot do what is asked of it.
#include "kernels/cuda/supported.h"

#include <gtest/gtest.h>

#include "gradflow/kernels/error.h"

namespace gradflow::kernels::cuda {
namespace {

TEST(Supported, Tf32NeedsAmpere) {
  EXPECT_NO_THROW(require_tf32("a device", {8, 0}));
  EXPECT_NO_THROW(require_tf32("a device", {12, 1}));
  std::string said;
  try {
    require_tf32("cuda:0", {7, 5});
  } catch (const UserError& e) {
    said = e.what();
  }
  EXPECT_EQ(said, "TF32 needs a device of compute 8.0 or above, and cuda:0 has compute 7.5: leave out --tf32");
}

TEST(Supported, AModuleBuiltForOthersNamesThemAndTheRemedy) {
  EXPECT_EQ(not_built_for("cuda:1", {7, 5}, "80, 90", "cudaErrorNoKernelImageForDevice: no kernel image"),
            "the CUDA module has no code for cuda:1 (compute 7.5): it was built for the architectures 80, 90 "
            "(cudaErrorNoKernelImageForDevice: no kernel image); build it for this one: make build "
            "CMAKE_ARGS=-DCMAKE_CUDA_ARCHITECTURES=75");
}

}  // namespace
}  // namespace gradflow::kernels::cuda
