#include "gradflow/engine/spec_text.h"

#include <gtest/gtest.h>

#include "engine/temp_dir.h"

namespace gradflow {
namespace {

using test::has;
using test::user_error;

struct Net {
  std::int64_t depth;
  double gain;
  bool skip;
  std::string act;
  std::vector<std::int64_t> at;
  std::string scale;
};

Net read(std::string_view text) {
  SpecReader reader(text, "model");
  Net net{
      reader.get_int("depth", 50, 1, 1000),   reader.get_double("gain", 1.0, 0.0),
      reader.get_switch("skip", false),       reader.get_choice("act", {"sigmoid", "tanh", "relu"}, "relu"),
      reader.get_int_list("at", {7}, 1, 100), reader.get_text("scale", "1")};
  reader.finish();
  return net;
}

std::string spec_error(std::string_view text) {
  return user_error([&] { read(text); });
}

TEST(SpecText, ReadsValuesAndDefaults) {
  const Net plain = read("mlp");
  EXPECT_EQ(plain.depth, 50);
  EXPECT_EQ(plain.gain, 1.0);
  EXPECT_FALSE(plain.skip);
  EXPECT_EQ(plain.act, "relu");
  EXPECT_EQ(plain.at, std::vector<std::int64_t>{7});
  const Net net = read("mlp:skip=on,depth=1000,gain=2.5e-1,act=tanh,at=1/20/100,scale=1/sqrt(L)");
  EXPECT_EQ(net.depth, 1000);
  EXPECT_EQ(net.gain, 0.25);
  EXPECT_TRUE(net.skip);
  EXPECT_EQ(net.act, "tanh");
  EXPECT_EQ(net.at, (std::vector<std::int64_t>{1, 20, 100}));
  EXPECT_EQ(net.scale, "1/sqrt(L)");
}

TEST(SpecText, AnErrorQuotesTextAndPartAndListsTheKeys) {
  EXPECT_EQ(spec_error("mlp:depth=3,atc=tanh"),
            "model 'mlp:depth=3,atc=tanh': unknown key 'atc'; did you mean 'act'? "
            "(keys: depth, gain, skip, act, at, scale)");
  EXPECT_EQ(spec_error("mlp:depth=0"),
            "model 'mlp:depth=0': 'depth=0' is not a whole number from 1 to 1000 "
            "(keys: depth, gain, skip, act, at, scale)");
}

TEST(SpecText, TheFormIsStrict) {
  EXPECT_TRUE(has(spec_error("mlp:"), "nothing follows the ':'"));
  EXPECT_TRUE(has(spec_error("mlp:depth=3,"), "empty part"));
  EXPECT_TRUE(has(spec_error("mlp:,depth=3"), "empty part"));
  EXPECT_TRUE(has(spec_error("mlp:depth=3,,skip=on"), "empty part"));
  EXPECT_TRUE(has(spec_error("mlp:depth"), "'depth' has no '='"));
  EXPECT_TRUE(has(spec_error("mlp:=3"), "'=3' has no key"));
  EXPECT_TRUE(has(spec_error("mlp:depth="), "'depth=' has no value"));
  EXPECT_TRUE(has(spec_error("mlp:depth=3,skip=on,depth=3"), "'depth' is given twice"));
  EXPECT_TRUE(has(spec_error("mlp: depth=3"), "unknown key ' depth'; did you mean 'depth'?"));
  EXPECT_TRUE(has(spec_error("mlp:xyzzy=3"), "unknown key 'xyzzy' (keys: "));
}

TEST(SpecText, MalformedTextComesBeforeUnknownKeysBeforeValues) {
  EXPECT_TRUE(has(spec_error("mlp:depth=0,xyzzy=1,skip"), "'skip' has no '='"));
  EXPECT_TRUE(has(spec_error("mlp:depth=0,xyzzy=1"), "xyzzy"));
  EXPECT_TRUE(has(spec_error("mlp:act=cosh,depth=0"), "depth=0"));  // in the order they are read
}

TEST(SpecText, NumbersAreStrict) {
  for (const char* bad :
       {"0", "1001", "-1", "+3", "3.0", "3x", "x", " 3", "3 ", "1e2", "0x10", "99999999999999999999"})
    EXPECT_TRUE(has(spec_error(std::string("mlp:depth=") + bad), "is not a whole number from 1 to 1000"))
        << bad;
  for (const char* bad : {"nan", "NaN", "inf", "-inf", "infinity", "-1", "1e999", "-1e999", "1.0f", "1,5",
                          "0x1p3", "1..2", "+1"})
    EXPECT_TRUE(has(spec_error(std::string("mlp:gain=") + bad),
                    bad == std::string("1,5") ? "'5' has no '='" : "is not a finite number of at least 0"))
        << bad;
  EXPECT_EQ(read("mlp:gain=.5").gain, 0.5);
  for (const char* bad : {"/", "1/", "/1", "1//2", "0", "1/101", "1;2", "a"})
    EXPECT_TRUE(has(spec_error(std::string("mlp:at=") + bad), "whole numbers from 1 to 100 separated by '/'"))
        << bad;
}

TEST(SpecText, ChoicesSuggestTheNearest) {
  EXPECT_TRUE(has(spec_error("mlp:act=sigmod"),
                  "'act=sigmod' is not one of sigmoid, tanh, relu; did you mean 'sigmoid'?"));
  EXPECT_TRUE(has(spec_error("mlp:skip=yes"), "'skip=yes' is not one of on, off"));
  EXPECT_TRUE(has(spec_error("mlp:act=RELU"), "not one of"));
}

TEST(SpecText, ANameWithoutKeysSaysSo) {
  SpecReader reader("constant:x=1", "schedule");
  EXPECT_TRUE(has(user_error([&] { reader.finish(); }), "unknown key 'x' ('constant' takes no keys)"));
}

TEST(SpecText, OwnChecksAreReportedInTheSameForm) {
  SpecReader reader("mlp:scale=2*L", "model");
  reader.get_text("scale", "1");
  reader.reject("scale", "a number or 1/sqrt(L)");
  EXPECT_EQ(user_error([&] { reader.finish(); }),
            "model 'mlp:scale=2*L': 'scale=2*L' is not a number or 1/sqrt(L) (keys: scale)");
}

TEST(SpecText, UnknownNames) {
  const auto error = [](std::string_view spec) {
    return user_error([&] {
      throw_unknown_name("data", spec, split_name(spec).name, {"mnist", "synthetic"});
    });
  };
  EXPECT_EQ(error("mnits:x"),
            "data 'mnits:x': unknown name 'mnits'; did you mean 'mnist'? (names: mnist, synthetic)");
  EXPECT_TRUE(has(error("q"), "unknown name 'q' (names: mnist, synthetic)"));
  EXPECT_TRUE(has(error(""), "the name is missing"));
  EXPECT_TRUE(has(error("a\nb"), "'a\\nb'"));
}

TEST(SpecText, SplitNameKeepsPathsWhole) {
  const SplitName split = split_name("mnist:/a=b,c:d");
  EXPECT_EQ(split.name, "mnist");
  EXPECT_EQ(split.rest, "/a=b,c:d");
  EXPECT_TRUE(split.has_rest);
  EXPECT_FALSE(split_name("mnist").has_rest);
  EXPECT_EQ(split_name("mnist:").rest, "");
}

}  // namespace
}  // namespace gradflow
