#include "gradflow/engine/idx.h"

#include <gtest/gtest.h>
#include <zlib.h>

#include <string>

#include "engine/idx_bytes.h"
#include "engine/temp_dir.h"
#include "gradflow/engine/file.h"

namespace gradflow {
namespace {

using test::gzipped;
using test::has;
using test::idx_images;
using test::idx_labels;
using test::TempDir;
using test::user_error;

class Idx : public ::testing::Test {
 protected:
  std::string image_error(const std::string& bytes) {
    write_file_atomically(dir_ / "images", bytes);
    return user_error([&] { read_idx_images(dir_ / "images"); });
  }
  std::string label_error(const std::string& bytes) {
    write_file_atomically(dir_ / "labels", bytes);
    return user_error([&] { read_idx_labels(dir_ / "labels"); });
  }
  TempDir dir_;
};

TEST_F(Idx, ReadsPlainAndCompressed) {
  const std::string plain = idx_images(2, 2, 3, "abcdefghijkl");
  for (const std::string& bytes : {plain, gzipped(plain)}) {
    write_file_atomically(dir_ / "images", bytes);
    const IdxImages images = read_idx_images(dir_ / "images");
    EXPECT_EQ(images.count, 2u);
    EXPECT_EQ(images.height, 2u);
    EXPECT_EQ(images.width, 3u);
    EXPECT_EQ(std::string(images.pixels.begin(), images.pixels.end()), "abcdefghijkl");
    write_file_atomically(dir_ / "labels", gzipped(idx_labels("\1\2\3")));
    EXPECT_EQ(read_idx_labels(dir_ / "labels"), (std::vector<std::uint16_t>{1, 2, 3}));
  }
}

TEST_F(Idx, ReadsMoreThanOneChunk) {
  std::string pixels(5'000'000, '\0');
  for (std::size_t i = 0; i < pixels.size(); ++i) pixels[i] = static_cast<char>(i * 2654435761u >> 13);
  for (bool compress : {false, true}) {
    const std::string bytes = idx_images(5, 1000, 1000, pixels);
    write_file_atomically(dir_ / "images", compress ? gzipped(bytes) : bytes);
    const IdxImages images = read_idx_images(dir_ / "images");
    EXPECT_TRUE(std::equal(images.pixels.begin(), images.pixels.end(),
                           reinterpret_cast<const std::uint8_t*>(pixels.data())));
  }
}

TEST_F(Idx, EveryTruncationIsFound) {
  const std::string plain = idx_images(2, 2, 3, "abcdefghijkl");
  for (std::size_t n = 0; n < plain.size(); ++n)
    EXPECT_TRUE(has(image_error(plain.substr(0, n)), "truncated")) << n;
  EXPECT_TRUE(has(image_error(plain.substr(0, 20)), "promises 12 data bytes, there are 4"));
  EXPECT_TRUE(has(image_error(plain.substr(0, 9)), "the header takes 16 bytes, the file has 9"));
  const std::string compressed = gzipped(plain);
  for (std::size_t n = 0; n < compressed.size(); ++n)
    EXPECT_TRUE(has(image_error(compressed.substr(0, n)), "cannot read IDX file")) << n;
  EXPECT_TRUE(has(image_error(compressed.substr(0, 20)), "truncated"));
  EXPECT_TRUE(has(label_error(idx_labels("abc").substr(0, 9)), "promises 3 data bytes, there are 1"));
}

TEST_F(Idx, FaultsAreNamed) {
  EXPECT_TRUE(has(image_error(idx_images(1, 2, 2, "abcde")), "trailing bytes after the 4 data bytes"));
  EXPECT_TRUE(has(image_error(gzipped(idx_images(1, 2, 2, "abcde"))), "trailing bytes"));
  EXPECT_TRUE(has(image_error(idx_labels("abcdefghijklmnop")), "wrong magic number 0x00000801"));
  EXPECT_TRUE(has(label_error(idx_images(1, 2, 2, "abcd")), "begins with 0x00000801"));
  EXPECT_TRUE(has(image_error("<!DOCTYPE html>"), "wrong magic number"));
  EXPECT_TRUE(has(image_error(idx_images(0, 28, 28, "")), "no images"));
  EXPECT_TRUE(has(image_error(idx_images(5, 0, 28, "")), "no images"));
  EXPECT_TRUE(has(label_error(idx_labels("")), "no labels"));
  EXPECT_TRUE(has(user_error([&] { read_idx_images(dir_ / "none"); }), "No such file"));
  EXPECT_TRUE(has(user_error([&] { read_idx_images(dir_.path()); }), "it is a folder"));
}

TEST_F(Idx, AbsurdSizesTakeNoMemory) {
  EXPECT_TRUE(has(image_error(idx_images(0xffffffff, 0xffffffff, 0xffffffff, "a")), "absurd sizes"));
  EXPECT_TRUE(has(image_error(idx_images(1, 0xffffffff, 0xffffffff, "a")), "absurd sizes"));
  // 60 GiB are promised and not there: found without reserving them.
  EXPECT_TRUE(has(image_error(idx_images(60, 1 << 15, 1 << 15, "a")), "there are 1"));
  EXPECT_TRUE(has(image_error(gzipped(idx_images(60, 1 << 15, 1 << 15, "a"))), "there are 1"));
}

TEST_F(Idx, DamagedCompressionNeverPasses) {
  const std::string plain = idx_images(2, 2, 3, "abcdefghijkl");
  const std::string good = gzipped(plain);
  int refused = 0;
  for (std::size_t i = 0; i < good.size(); ++i) {
    std::string bad = good;
    bad[i] = static_cast<char>(bad[i] ^ 0x10);
    write_file_atomically(dir_ / "images", bad);
    try {
      const IdxImages images = read_idx_images(dir_ / "images");
      EXPECT_EQ(std::string(images.pixels.begin(), images.pixels.end()), "abcdefghijkl") << i;
    } catch (const UserError&) {
      ++refused;
    }
  }
  // All but the gzip header's bytes for time and system are covered by magic, code or checksum.
  EXPECT_GE(refused, static_cast<int>(good.size()) - 6);
}

}  // namespace
}  // namespace gradflow
