// Which operands cuDNN gets as copies, and where these lie.
#include "kernels/cuda/cudnn/staging.h"

#include <gtest/gtest.h>

namespace gradflow::kernels::cuda {
namespace {

const void* address(std::uintptr_t at) { return reinterpret_cast<const void*>(at); }

TEST(CudnnStaging, AlignedOperandsStayWhereTheyAre) {
  const StagingPlan plan = plan_staging({{address(0x1000), 5}, {address(0x2010), 400}, {nullptr, 0}});
  EXPECT_EQ(plan.places, (std::vector{kInPlace, kInPlace, kInPlace}));
  EXPECT_EQ(plan.bytes, 0u);
}

TEST(CudnnStaging, OthersAreCopiedSideBySide) {
  const StagingPlan plan = plan_staging({{address(0x1002), 300}, {address(0x2000), 8}, {address(0x3008), 256}, {address(0x4004), 1}});
  EXPECT_EQ(plan.places, (std::vector<std::size_t>{0, kInPlace, 512, 768}));
  EXPECT_EQ(plan.bytes, 1024u);
}

}  // namespace
}  // namespace gradflow::kernels::cuda
