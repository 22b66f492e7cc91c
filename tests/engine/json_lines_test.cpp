#include "gradflow/engine/json_lines.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <array>
#include <limits>
#include <nlohmann/json.hpp>

#include "engine/temp_dir.h"
#include "gradflow/engine/file.h"

namespace gradflow {
namespace {

using test::has;
using test::TempDir;
using test::user_error;

TEST(JsonLines, ALineIsValidJson) {
  const double inf = std::numeric_limits<double>::infinity();
  const std::array<double, 3> list = {1.5, std::numeric_limits<double>::quiet_NaN(), -2.0};
  const std::string text = JsonLine()
                               .add("step", 3)
                               .add("big", ~0ull)
                               .add("loss", 0.1)
                               .add("narrow", 0.1f)
                               .add("tiny", 4.9e-324)
                               .add("huge", 1e300)
                               .add("inf", -inf)
                               .add("ok", true)
                               .add("name", "a\"b\nc\xff")
                               .add("list", list)
                               .add("none", std::span<const float>())
                               .add_json("own", R"({"a":1})")
                               .text();
  EXPECT_EQ(text,
            R"({"step":3,"big":18446744073709551615,"loss":0.1,"narrow":0.1,"tiny":5e-324,"huge":1e+300,)"
            R"("inf":null,"ok":true,"name":"a\"b\nc)"
            "\xef\xbf\xbd"
            R"(","list":[1.5,null,-2],"none":[],"own":{"a":1}})");
  const auto parsed = nlohmann::json::parse(text);
  EXPECT_EQ(parsed["tiny"].get<double>(), std::numeric_limits<double>::denorm_min());
  EXPECT_EQ(JsonLine().text(), "{}");
}

TEST(JsonLines, LinesAreThereAtOnce) {
  TempDir dir;
  JsonLinesLog log(dir / "log");
  EXPECT_EQ(read_file(dir / "log"), "");
  log.write(JsonLine().add("step", 1));
  log.write(JsonLine().add("step", 2));
  EXPECT_EQ(read_file(dir / "log"), "{\"step\":1}\n{\"step\":2}\n");  // the log is still open
}

TEST(JsonLines, ResumingDropsWhatCameAfterTheCheckpoint) {
  TempDir dir;
  const std::string head = "{\"model\":\"mlp\"}\n";
  write_file_atomically(dir / "log",
                        head + "{\"step\":1}\n{\"step\":2}\n{\"step\":3}\n{\"done\":true}\n{\"ste");
  {
    JsonLinesLog log(dir / "log", 2);
    log.write(JsonLine().add("step", 3));
  }
  EXPECT_EQ(read_file(dir / "log"), head + "{\"step\":1}\n{\"step\":2}\n{\"done\":true}\n{\"step\":3}\n");
  { JsonLinesLog log(dir / "log", 0); }
  EXPECT_EQ(read_file(dir / "log"), head + "{\"done\":true}\n");
  { JsonLinesLog log(dir / "log"); }
  EXPECT_EQ(read_file(dir / "log"), "");
  { JsonLinesLog log(dir / "other", 7); }  // nothing to resume
  EXPECT_EQ(read_file(dir / "other"), "");
}

TEST(JsonLines, DamageAtTheEndIsDroppedAndElsewhereRefused) {
  TempDir dir;
  write_file_atomically(dir / "log", std::string("{\"step\":1}\n\0\0\0\n", 15));
  { JsonLinesLog log(dir / "log", 9); }
  EXPECT_EQ(read_file(dir / "log"), "{\"step\":1}\n");
  const std::string letter = "Dear diary,\n{\"step\":1}\n";
  write_file_atomically(dir / "letter", letter);
  EXPECT_TRUE(has(user_error([&] { JsonLinesLog log(dir / "letter", 9); }), "line 1 is not a JSON object"));
  EXPECT_EQ(read_file(dir / "letter"), letter);
}

TEST(JsonLines, ErrorsNameTheFile) {
  TempDir dir;
  EXPECT_TRUE(has(user_error([&] { JsonLinesLog log(dir / "no/log"); }), "no/log"));
  ASSERT_EQ(::access("/dev/full", W_OK), 0) << "every Linux has it, containers too";
  JsonLinesLog log("/dev/full");
  EXPECT_TRUE(has(user_error([&] { log.write(JsonLine().add("step", 1)); }), "No space left"));
}

}  // namespace
}  // namespace gradflow
