#include "gradflow/engine/text.h"

#include <gtest/gtest.h>

#include <vector>

namespace gradflow {
namespace {

TEST(Text, QuotedStaysOnOneLineAndShort) {
  EXPECT_EQ(quote("a b"), "'a b'");
  EXPECT_EQ(quote("a\nb\tc\x01"), "'a\\nb\\tc\\x01'");
  EXPECT_EQ(quote(""), "''");
  EXPECT_EQ(quote(std::string(10, 'x'), 4), "'xxxx'... (10 bytes)");
}

TEST(Text, EditDistanceCountsASwapOnce) {
  EXPECT_EQ(edit_distance("", ""), 0u);
  EXPECT_EQ(edit_distance("", "abc"), 3u);
  EXPECT_EQ(edit_distance("kitten", "sitting"), 3u);
  EXPECT_EQ(edit_distance("widht", "width"), 1u);
  EXPECT_EQ(edit_distance("depth", "width"), 3u);
  EXPECT_EQ(edit_distance(std::string(65, 'a'), "a"), 65u);
}

TEST(Text, NearestNameSuggestsSlipsOnly) {
  const std::vector<std::string> valid = {"depth", "width", "act", "skip", "branch", "branch_scale"};
  EXPECT_EQ(nearest_name("widht", valid), "width");
  EXPECT_EQ(nearest_name("deptth", valid), "depth");
  EXPECT_EQ(nearest_name("branchscale", valid), "branch_scale");
  EXPECT_EQ(nearest_name("activation", valid), "act");
  EXPECT_EQ(nearest_name("xyzzy", valid), "");
  EXPECT_EQ(nearest_name("sk", valid), "skip");
  EXPECT_EQ(nearest_name("", valid), "");
  EXPECT_EQ(nearest_name("width", {}), "");
}

}  // namespace
}  // namespace gradflow
