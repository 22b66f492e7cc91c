// The files that the build puts into the program.
#include "apps/report/assets.h"

#include <gtest/gtest.h>

#include <set>
#include <string>

#include "gradflow/kernels/error.h"

namespace gradflow::app {
namespace {

TEST(Assets, HoldTheChartLibraryToItsLastByte) {
  const std::string_view chart = asset("chart.js");
  EXPECT_TRUE(chart.starts_with("/*!\n * Chart.js v")) << chart.substr(0, 60);
  EXPECT_NE(chart.find("MIT License"), std::string_view::npos) << "its license must travel with it";
  EXPECT_TRUE(chart.ends_with("\n") || chart.ends_with(";")) << chart.substr(chart.size() - 60);
  EXPECT_EQ(chart.find('\0'), std::string_view::npos);
  EXPECT_EQ(chart.data()[chart.size()], '\0');
}

TEST(Assets, HaveUniqueNamesAndContents) {
  std::set<std::string_view> names;
  for (const EmbeddedFile& file : asset_files()) {
    EXPECT_TRUE(names.insert(file.name).second) << file.name << " is there twice";
    EXPECT_FALSE(file.bytes.empty()) << file.name;
    EXPECT_EQ(asset(file.name).data(), file.bytes.data());
  }
}

TEST(Assets, NameWhatThereIsWhenAskedForSomethingElse) {
  try {
    asset("chart.jsx");
    FAIL() << "an unknown name was answered";
  } catch (const InternalError& e) {
    EXPECT_NE(std::string(e.what()).find("chart.js"), std::string::npos) << e.what();
  }
}

}  // namespace
}  // namespace gradflow::app
