// A failing round of a test's loops must say how to repeat it, and that must run this round alone.
#include <gtest/gtest-spi.h>

#include <cstdlib>

#include "simt/harness.h"

namespace gradflow::kernels::cuda {
namespace {

std::vector<int> rounds_run() {
  std::vector<int> run;
  for (const int i : {1, 2, 3}) {
    SIMT_CASE("round " << i);
    run.push_back(i);
  }
  return run;
}

TEST(Cases, OnlyTheOneAskedForRuns) {
  const char* outer = std::getenv("SIMT_CASE");
  const std::string before = outer != nullptr ? outer : "";
  unsetenv("SIMT_CASE");
  EXPECT_EQ(rounds_run(), (std::vector<int>{1, 2, 3}));
  setenv("SIMT_CASE", "round 2", 1);
  EXPECT_EQ(rounds_run(), (std::vector<int>{2}));
  unsetenv("SIMT_CASE");
  if (outer != nullptr) setenv("SIMT_CASE", before.c_str(), 1);
}

TEST(Cases, AFailureCarriesItsCommand) {
  const auto fail = [] {
    const Case here{testing::Message() << "n=33 offset=1", "file", 1};
    ADD_FAILURE() << "as intended";
  };
  EXPECT_NONFATAL_FAILURE(fail(), "repeat: SIMT_CASE='n=33 offset=1' /");
  EXPECT_NONFATAL_FAILURE(fail(), "--gtest_filter=Cases.AFailureCarriesItsCommand");
}

}  // namespace
}  // namespace gradflow::kernels::cuda
