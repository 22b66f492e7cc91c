// CIFAR's binary files: pixels where they belong, and every fault in one line.
#include <gtest/gtest.h>

#include "engine/dataset_error.h"
#include "engine/temp_dir.h"
#include "gradflow/engine/dataset.h"
#include "gradflow/engine/file.h"

namespace gradflow {
namespace {

using test::has;
using test::load_error;
using test::TempDir;

// Pixel p of plane c is 100 c + p % 97, so that a plane in the wrong place shows.
std::string record(std::string labels) {
  for (int c = 0; c < 3; ++c)
    for (int p = 0; p < 1024; ++p) labels += static_cast<char>(c * 50 + p % 47);
  return labels;
}

void write_ten(const TempDir& dir) {
  for (int i = 1; i <= 5; ++i)
    write_file_atomically(dir / ("data_batch_" + std::to_string(i) + ".bin"),
                          record(std::string(1, static_cast<char>(i))) + record(std::string(1, '\0')));
  write_file_atomically(dir / "test_batch.bin", record("\x09"));
}

TEST(Cifar, TenIsReadInOrderAndChannelsLast) {
  TempDir dir;
  write_ten(dir);
  const Dataset data = load_dataset("cifar10-subset:" + dir.path().string());
  EXPECT_EQ(data.shape, (ImageShape{32, 32, 3}));
  EXPECT_EQ(data.classes, 10);
  EXPECT_EQ(data.train.labels, (std::vector<std::uint16_t>{1, 0, 2, 0, 3, 0, 4, 0, 5, 0}));
  EXPECT_EQ(data.test.labels, (std::vector<std::uint16_t>{9}));
  for (const std::size_t pixel : {std::size_t{0}, std::size_t{33}, std::size_t{1023}})
    for (std::size_t c = 0; c < 3; ++c)
      EXPECT_EQ(data.train.images[3 * 3072 + pixel * 3 + c], c * 50 + pixel % 47) << pixel << " " << c;
}

TEST(Cifar, AnUnpackedArchiveIsFoundInsideItsFolder) {
  TempDir dir;
  std::filesystem::create_directory(dir / "cifar-100-binary");
  write_file_atomically(dir / "cifar-100-binary/train.bin",
                        record("\x13\x63") + record(std::string(2, '\0')));
  write_file_atomically(dir / "cifar-100-binary/test.bin", record("\x01\x05"));
  const Dataset data = load_dataset("cifar100-subset:" + dir.path().string());
  EXPECT_EQ(data.classes, 100);
  EXPECT_EQ(data.train.labels, (std::vector<std::uint16_t>{99, 0}));
  EXPECT_EQ(data.test.labels, (std::vector<std::uint16_t>{5}));
}

TEST(Cifar, FaultsAreNamed) {
  TempDir dir;
  const std::string ten = "cifar10-subset:" + dir.path().string(), hundred = "cifar100-subset:" + dir.path().string();
  EXPECT_TRUE(has(load_error("cifar10"), "expected cifar10:DIR"));
  EXPECT_TRUE(has(load_error("cifar10:/no/such/folder"), "there is no folder '/no/such/folder'"));
  EXPECT_TRUE(has(load_error(ten), "no data_batch_1.bin in the folder"));
  write_ten(dir);
  std::filesystem::remove(dir / "test_batch.bin");
  EXPECT_TRUE(has(load_error(ten), "no test_batch.bin in the folder"));
  write_file_atomically(dir / "test_batch.bin", record("\x09").substr(1));
  EXPECT_TRUE(has(load_error(ten), "has 3072 bytes, which is no whole number of records of 3073"));
  write_file_atomically(dir / "test_batch.bin", "");
  EXPECT_TRUE(has(load_error(ten), "has 0 bytes"));
  write_file_atomically(dir / "test_batch.bin", record("\x09") + record("\x0a"));
  EXPECT_TRUE(has(load_error(ten), "record 1 has the label 10, but only 0 to 9 exist"));
  write_file_atomically(dir / "train.bin", record("\x14\x05"));
  write_file_atomically(dir / "test.bin", record("\x01\x05"));
  EXPECT_TRUE(has(load_error(hundred), "record 0 has the coarse label 20"));
}

// A download that broke off behind a whole record looks like CIFAR but for its length. Zeros: pixels of one level and label 0.
TEST(Cifar, FilesOfAnotherLengthThanThePublishedOnesAreRefused) {
  TempDir dir;
  write_ten(dir);
  const std::string folder = dir.path().string(), first = dir / "data_batch_1.bin";
  EXPECT_EQ(load_error("cifar10:" + folder),
            "'" + first + "' has 2 records, CIFAR-10 has 10000 there; for a part of the data say cifar10-subset:DIR");
  std::filesystem::resize_file(first, 9999 * 3073);
  EXPECT_TRUE(has(load_error("cifar10:" + folder), "has 9999 records"));
  std::filesystem::resize_file(first, 10000 * 3073);
  EXPECT_TRUE(has(load_error("cifar10:" + folder), "data_batch_2.bin' has 2 records"));
  write_file_atomically(dir / "train.bin", record("\x13\x63"));
  write_file_atomically(dir / "test.bin", record("\x13\x63"));
  EXPECT_TRUE(has(load_error("cifar100:" + folder), "train.bin' has 1 records, CIFAR-100 has 50000 there"));
  std::filesystem::resize_file(dir / "train.bin", 50000 * 3074);
  EXPECT_TRUE(has(load_error("cifar100:" + folder), "test.bin' has 1 records, CIFAR-100 has 10000 there"));
  std::filesystem::resize_file(dir / "test.bin", 10000 * 3074);
  EXPECT_EQ(open_dataset("cifar100:" + folder).train.count(), 50000u);
}

}  // namespace
}  // namespace gradflow
