#include "gradflow/engine/safetensors.h"

#include <gtest/gtest.h>

#include <array>
#include <cstring>
#include <limits>
#include <nlohmann/json.hpp>

#include "engine/temp_dir.h"
#include "gradflow/engine/file.h"

namespace gradflow {
namespace {

using test::has;
using test::TempDir;
using test::user_error;

// A file from its header's text and its data.
std::string file_of(std::string_view header, std::string_view data = "") {
  const std::uint64_t length = header.size();
  std::string bytes(8, '\0');
  std::memcpy(bytes.data(), &length, 8);
  return bytes.append(header).append(data);
}

std::string safetensors_error(std::string bytes) {
  return user_error([&] { SafetensorsFile(std::move(bytes), "the file"); });
}

std::string header_error(std::string_view header, std::string_view data = "12345678") {
  const std::string text = safetensors_error(file_of(header, data));
  EXPECT_TRUE(has(text, "cannot use safetensors file 'the file': "));
  return text;
}

TEST(Safetensors, WhatIsWrittenIsRead) {
  TempDir dir;
  const std::vector<float> weight = {
      1.5f, -0.0f, std::numeric_limits<float>::denorm_min(), std::numeric_limits<float>::infinity(),
      3.0f, -2.0f};
  const std::vector<double> exact = {0.1, 0.2};
  const std::vector<std::uint8_t> bytes = {1, 2, 3};
  const std::vector<std::int32_t> labels = {-7, 7};
  const std::uint64_t step = 1ull << 60;
  const std::int64_t position = -5;
  const std::vector<TensorToStore> tensors = {
      {"bytes", StoredType::u8, {3}, bytes.data()},
      {"block07.linear.weight", StoredType::f32, {2, 3}, weight.data()},
      {"labels", StoredType::i32, {2}, labels.data()},
      {"empty", StoredType::f32, {0, 5}, nullptr},
      {"exact", StoredType::f64, {2, 1}, exact.data()},
      {"step", StoredType::u64, {}, &step},
      {"\"\\\n\xc3\xa9", StoredType::i64, {1}, &position},
  };
  const Metadata metadata = {{"model", "mlp:depth=50"}, {"quote\"", "line\nbreak"}};
  write_safetensors(dir / "a.safetensors", tensors, metadata);
  const SafetensorsFile file(dir / "a.safetensors");
  EXPECT_EQ(file.metadata(), metadata);
  ASSERT_EQ(file.tensors().size(), tensors.size());
  for (const TensorToStore& tensor : tensors) {
    const StoredTensor& stored = file.at(tensor.name);
    EXPECT_EQ(stored.type, tensor.type);
    EXPECT_EQ(stored.shape, tensor.shape);
    EXPECT_TRUE(stored.bytes() == 0 || std::memcmp(stored.data, tensor.data, stored.bytes()) == 0);
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(stored.data) % size_of(stored.type), 0u);
  }
  const std::uint64_t shape[] = {2, 3};
  EXPECT_EQ(file.values<float>("block07.linear.weight", shape)[4], 3.0f);
  EXPECT_EQ(file.values<std::uint64_t>("step")[0], step);
  EXPECT_TRUE(
      has(user_error([&] { file.values<double>("step"); }), "tensor 'step': it holds U64, expected F64"));
  EXPECT_TRUE(
      has(user_error([&] { file.values<float>("block07.linear.weight", std::array<std::uint64_t, 1>{6}); }),
          "its shape is [2, 3], expected [6]"));
  EXPECT_TRUE(
      has(user_error([&] { file.at("block07.linear.wieght"); }), "the nearest is 'block07.linear.weight'"));
  EXPECT_EQ(file.find("nothing"), nullptr);
}

// The format as its specification states it, read without this library's reader.
TEST(Safetensors, TheFileFollowsTheFormat) {
  TempDir dir;
  const std::vector<float> a = {1, 2, 3, 4};
  const std::uint8_t b = 255;
  write_safetensors(
      dir / "a",
      std::vector<TensorToStore>{{"b", StoredType::u8, {1}, &b}, {"a", StoredType::f32, {2, 2}, a.data()}},
      {{"k", "v"}});
  const std::string bytes = read_file(dir / "a");
  std::uint64_t length = 0;
  for (int i = 7; i >= 0; --i)
    length = length << 8 | static_cast<unsigned char>(bytes[static_cast<std::size_t>(i)]);
  EXPECT_EQ(length % 8, 0u);
  ASSERT_EQ(bytes.size(), 8 + length + 17);
  const auto header = nlohmann::json::parse(bytes.substr(8, length));
  EXPECT_EQ(header, nlohmann::json::parse(R"({"__metadata__": {"k": "v"},
      "a": {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]},
      "b": {"dtype": "U8", "shape": [1], "data_offsets": [16, 17]}})"));
  EXPECT_EQ(bytes.substr(8 + length), std::string("\0\0\x80?\0\0\0@\0\0@@\0\0\x80@\xff", 17));
}

TEST(Safetensors, AnEmptyFileIsAFile) {
  TempDir dir;
  write_safetensors(dir / "a", {});
  EXPECT_TRUE(SafetensorsFile(dir / "a").tensors().empty());
}

TEST(Safetensors, MisalignedTensorsOfOthersAreRead) {
  const std::string header =
      R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"b":{"dtype":"F64","shape":[],"data_offsets":[1,9]}})";
  const double value = 0.1;
  std::string data = "x";
  data.append(reinterpret_cast<const char*>(&value), 8);
  for (const char* pad : {"", " ", "  ", "       "}) {
    const SafetensorsFile file(file_of(header + pad, data), "the file");
    EXPECT_EQ(file.values<double>("b")[0], 0.1);
    EXPECT_EQ(file.values<std::uint8_t>("a")[0], 'x');
  }
}

TEST(Safetensors, FaultsOfTheFrame) {
  EXPECT_TRUE(has(safetensors_error(""), "truncated: 0 bytes"));
  EXPECT_TRUE(has(safetensors_error("1234567"), "truncated: 7 bytes"));
  EXPECT_TRUE(has(safetensors_error(std::string(8, '\xff') + "{}"),
                  "promises a header of 18446744073709551615 bytes, 2 are there"));
  EXPECT_TRUE(
      has(safetensors_error(std::string("\3\0\0\0\0\0\0\0{}", 10)), "promises a header of 3 bytes, 2 are there"));
  std::string huge = file_of(std::string(100'000'001, ' '));
  EXPECT_TRUE(has(safetensors_error(std::move(huge)), "more than the 100000000 allowed"));
  EXPECT_TRUE(has(header_error(""), "does not begin with '{'"));
  EXPECT_TRUE(has(header_error(" {}"), "does not begin with '{'"));
  EXPECT_TRUE(has(header_error("[1]"), "does not begin with '{'"));
  EXPECT_TRUE(has(header_error("{"), "not valid JSON"));
  EXPECT_TRUE(has(header_error("{}x"), "not valid JSON"));
  EXPECT_TRUE(has(header_error(std::string("{}\0", 3)), "not valid JSON"));
  EXPECT_TRUE(has(header_error("{\"a\xff\":1}"), "not valid JSON"));
  EXPECT_TRUE(has(header_error("{\"a\":01}"), "not valid JSON"));
  EXPECT_TRUE(has(header_error("{}"), "8 trailing bytes after the last tensor"));
}

std::string entry(std::string_view dtype, std::string_view shape, std::string_view offsets,
                  std::string_view name = "t") {
  return std::string("\"") + std::string(name) + R"(":{"dtype":)" + std::string(dtype) + R"(,"shape":)" +
         std::string(shape) + R"(,"data_offsets":)" + std::string(offsets) + "}";
}

std::string entry_error(std::string_view dtype, std::string_view shape, std::string_view offsets) {
  const std::string text = header_error("{" + entry(dtype, shape, offsets) + "}");
  EXPECT_TRUE(has(text, "tensor 't': "));
  return text;
}

TEST(Safetensors, FaultsOfATensor) {
  SafetensorsFile(file_of("{" + entry("\"F32\"", "[2]", "[0,8]") + "}", "12345678"), "good");
  EXPECT_TRUE(has(entry_error("\"F31\"", "[2]", "[0,8]"), "unknown dtype"));
  EXPECT_TRUE(has(entry_error("7", "[2]", "[0,8]"), "unknown dtype"));
  EXPECT_TRUE(has(entry_error("\"F32\"", "[-2]", "[0,8]"), "'-2' in 'shape' is not a whole number"));
  EXPECT_TRUE(has(entry_error("\"F32\"", "[2.0]", "[0,8]"), "'2.0' in 'shape'"));
  EXPECT_TRUE(
      has(entry_error("\"F32\"", "[99999999999999999999]", "[0,8]"), "in 'shape' is not a whole number"));
  EXPECT_TRUE(has(entry_error("\"F32\"", "2", "[0,8]"), "'shape' is not a list"));
  EXPECT_TRUE(has(entry_error("\"F32\"", "[true]", "[0,8]"), "'shape'"));
  EXPECT_TRUE(has(entry_error("\"F32\"", "[4294967296,4294967296]", "[0,8]"), "overflows"));
  EXPECT_TRUE(has(entry_error("\"F32\"", "[4611686018427387904]", "[0,8]"), "overflows"));
  // 2^62 * 4 + 8 is 8 modulo 2^64.
  EXPECT_TRUE(has(entry_error("\"F32\"", "[4611686018427387906]", "[0,8]"), "overflows"));
  EXPECT_TRUE(
      has(entry_error("\"F32\"", "[3]", "[0,8]"), "shape [3] of F32 takes 12 bytes, its offsets give it 8"));
  EXPECT_TRUE(has(entry_error("\"F32\"", "[3]", "[0,12]"), "outside the 8 data bytes"));
  EXPECT_TRUE(has(entry_error("\"F32\"", "[2]", "[8,0]"), "lie outside"));
  EXPECT_TRUE(
      has(entry_error("\"F32\"", "[2]", "[18446744073709551608,18446744073709551615]"), "lie outside"));
  EXPECT_TRUE(has(entry_error("\"F32\"", "[2]", "[0]"), "not [begin, end]"));
  EXPECT_TRUE(has(entry_error("\"F32\"", "[2]", "[0,8,8]"), "not [begin, end]"));
  EXPECT_TRUE(has(entry_error("\"F32\"", "[2]", "[-8,0]"), "'-8' in 'data_offsets'"));
  EXPECT_TRUE(has(entry_error("\"F32\"", "[1]", "[4,8]"), "4 unused bytes before"));
  EXPECT_TRUE(has(header_error("{" + entry("\"F32\"", "[1]", "[0,4]") + "}"), "4 trailing bytes"));
  EXPECT_TRUE(has(header_error(R"({"t":{"dtype":"F32","shape":[2]}})"), "'data_offsets' is missing"));
  EXPECT_TRUE(has(header_error(R"({"t":{"shape":[2],"data_offsets":[0,8]}})"), "'dtype' is missing"));
  EXPECT_TRUE(has(header_error(R"({"t":{"dtype":"F32","shape":[2],"data_offsets":[0,8],"x":1}})"),
                  "unknown field 'x'"));
  EXPECT_TRUE(has(header_error(R"({"t":7})"), "its entry is not an object"));
  EXPECT_TRUE(has(header_error(R"({"__metadata__":{"a":7}})"), "metadata 'a' is not a text"));
  EXPECT_TRUE(has(header_error(R"({"__metadata__":[]})"), "not an object"));
}

TEST(Safetensors, FaultsAmongTensors) {
  const auto two = [](std::string_view first, std::string_view second) {
    return header_error("{" + entry("\"F32\"", "[1]", first, "a") + "," +
                        entry("\"F32\"", "[1]", second, "b") + "}");
  };
  EXPECT_TRUE(has(two("[0,4]", "[0,4]"), "tensor 'b': its data overlaps"));
  EXPECT_TRUE(has(two("[2,6]", "[0,4]"), "tensor 'a': its data overlaps"));
  EXPECT_TRUE(has(header_error("{" + entry("\"U8\"", "[4]", "[0,4]", "a") + "," +
                               entry("\"U8\"", "[3]", "[5,8]", "b") + "}"),
                  "tensor 'b': 1 unused bytes before its data"));
  const std::string good = entry("\"F32\"", "[2]", "[0,8]");
  EXPECT_TRUE(has(header_error("{" + good + "," + good + "}"), "names 't' twice"));
  EXPECT_TRUE(has(header_error(R"({"t":{"dtype":"F32","dtype":"F32","shape":[2],"data_offsets":[0,8]}})"),
                  "names 'dtype' twice"));
  EXPECT_TRUE(has(header_error(R"({"__metadata__":{"a":"1","a":"2"}})"), "names 'a' twice"));
}

TEST(Safetensors, HostileHeadersAreStoppedEarly) {
  EXPECT_TRUE(has(header_error("{\"a\":" + std::string(1'000'000, '[')), "nested too deep"));
  std::string objects = "{";
  for (int i = 0; i < 100'000; ++i) objects += "\"a\":{";
  EXPECT_TRUE(has(header_error(objects), "nested too deep"));
  std::string list = "{\"a\":{\"shape\":[0";
  for (int i = 0; i < 1'000'000; ++i) list += ",0";
  EXPECT_TRUE(has(header_error(list), "more than 64 dimensions"));
  std::string plain_list = "{\"a\":[0";
  for (int i = 0; i < 1'000'000; ++i) plain_list += ",0";
  EXPECT_TRUE(has(header_error(plain_list), "more than 64 dimensions"));
}

// Every truncation, every byte replaced by several others, in a file with all the format's parts: it is
// read or refused, and what is read stays inside the file (the sanitizer run sees to that).
TEST(Safetensors, DamageIsReadOrRefused) {
  TempDir dir;
  const std::vector<float> a = {1, 2, 3, 4};
  const std::vector<std::uint8_t> b = {5, 6, 7};
  const std::vector<TensorToStore> tensors = {{"a.weight", StoredType::f32, {2, 2}, a.data()},
                                              {"b", StoredType::u8, {3}, b.data()},
                                              {"none", StoredType::f64, {0}, nullptr}};
  write_safetensors(dir / "a", tensors, {{"k", "v"}});
  const std::string good = read_file(dir / "a");
  int read = 0, refused = 0;
  const auto attempt = [&](std::string bytes) {
    try {
      const SafetensorsFile file(std::move(bytes), "damaged");
      ++read;
      unsigned sum = 0;
      for (const StoredTensor& tensor : file.tensors())
        for (std::size_t i = 0; i < tensor.bytes(); ++i) sum += static_cast<unsigned>(tensor.data[i]);
      EXPECT_GE(sum, 0u);
    } catch (const UserError& error) {
      ++refused;
      EXPECT_EQ(std::string(error.what()).find('\n'), std::string::npos);
    }
  };
  for (std::size_t n = 0; n < good.size(); ++n) attempt(good.substr(0, n));
  EXPECT_EQ(read, 0);
  for (std::size_t i = 0; i < good.size(); ++i) {
    for (int change : {0x01, 0x02, 0x10, 0x20, 0x40, 0x80, 0xff}) {
      std::string bad = good;
      bad[i] = static_cast<char>(bad[i] ^ change);
      attempt(std::move(bad));
    }
    for (char c : std::string_view("0129-[]{},\":. \0e", 16)) {
      std::string bad = good;
      bad[i] = c;
      attempt(bad);
      bad.insert(i, 1, good[i]);
      attempt(std::move(bad));
    }
    std::string shorter = good;
    attempt(shorter.erase(i, 1));
  }
  EXPECT_GT(read, 100);  // damage to values and names is not for the format to see
  EXPECT_GT(refused, 1000);
}

TEST(Safetensors, TheWriterRefusesWhatItCannotMean) {
  TempDir dir;
  const float x = 1;
  const auto write = [&](const std::vector<TensorToStore>& tensors) {
    write_safetensors(dir / "a", tensors);
  };
  EXPECT_THROW(write({{"a", StoredType::f32, {}, &x}, {"a", StoredType::f32, {}, &x}}), InternalError);
  EXPECT_THROW(write({{"__metadata__", StoredType::f32, {}, &x}}), InternalError);
  EXPECT_THROW(write({{"\xff", StoredType::f32, {}, &x}}), InternalError);
  EXPECT_THROW(write({{"a", StoredType::f32, {1}, nullptr}}), InternalError);
  EXPECT_THROW(write({{"a", StoredType::f32, {1ull << 40, 1ull << 40}, &x}}), InternalError);
  EXPECT_EQ(dir.entries(), 0u);
  write_safetensors(dir / "a", {}, {{"path", "\xff"}});  // what a user typed is replaced, not refused
  EXPECT_EQ(SafetensorsFile(dir / "a").metadata().at("path"), "\xef\xbf\xbd");
  EXPECT_TRUE(has(user_error([&] { write_safetensors(dir / "no/a", {}); }), "cannot write"));
  EXPECT_TRUE(has(user_error([&] { SafetensorsFile(dir / "none"); }), "cannot read"));
}

}  // namespace
}  // namespace gradflow
