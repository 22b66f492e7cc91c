#include "gradflow/engine/version.h"

#include <gtest/gtest.h>

#include <regex>
#include <string>

namespace gradflow {
namespace {

TEST(Version, IsSemantic) {
  EXPECT_TRUE(std::regex_match(std::string(version()), std::regex("[0-9]+\\.[0-9]+\\.[0-9]+"))) << version();
}

TEST(Version, RevisionIsACommitOrUnknown) {
  EXPECT_TRUE(std::regex_match(std::string(git_revision()), std::regex("unknown|[0-9a-f]{12,40}(-dirty)?")))
      << git_revision();
}

TEST(Version, SummaryNamesCompilerAndCudaModule) {
  const std::string summary(build_summary());
  EXPECT_TRUE(std::regex_match(summary, std::regex("[A-Za-z]+ [0-9.]+, .*, (with|without) CUDA module"))) << summary;
  EXPECT_EQ(summary.find('$'), std::string::npos) << "an expression of the build was left unevaluated: " << summary;
}

}  // namespace
}  // namespace gradflow
