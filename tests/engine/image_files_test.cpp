// Images that stay in their files: the bits of those in memory, checked as strictly, and faults in one line.
#include "engine/image_files.h"

#include <gtest/gtest.h>

#include <cstring>
#include <fstream>

#include "engine/dataset_error.h"
#include "gradflow/engine/device.h"
#include "gradflow/engine/feed.h"
#include "gradflow/engine/memory.h"

namespace gradflow {
namespace {

namespace fs = std::filesystem;
using test::has;
using test::TempDir;
using test::user_error;

std::vector<std::uint8_t> all_images(const DataSplit& split) {
  std::vector<std::uint8_t> images(split.image_bytes());
  split.read_images(0, images);
  return images;
}

struct FileBatch {
  FileBatch(Backend& device, const Dataset& data, std::size_t samples)
      : memory(device, samples * (data.shape.features() + 1) * 4) {
    const auto [h, w, c] = data.shape;
    const auto extent = [](std::size_t n) { return static_cast<std::int64_t>(n); };
    x = {memory.data(), {{extent(samples), extent(h), extent(w), extent(c)}, DType::f32}};
    labels = {memory.at(samples * data.shape.features() * 4), {{extent(samples)}, DType::i32}};
  }
  bool operator==(const FileBatch& o) const { return std::memcmp(memory.data(), o.memory.data(), memory.bytes()) == 0; }
  DeviceMemory memory;
  Tensor x, labels;
};

TEST(ImageFiles, HaveTheBitsOfImagesInMemory) {
  const TempDir dir;
  test::write_idx_folder(dir.path(), 45, 11, 9, 7);
  test::write_cifar_folder(dir.path());
  const std::unique_ptr<Backend> device = open_device("cpu", 2);
  for (const char* kind : {"idx:", "half:idx:", "cifar10-subset:", "cifar100-subset:", "half:half:cifar10-subset:"}) {
    SCOPED_TRACE(kind);
    const std::string spec = kind + dir.path().string();
    const Dataset held = load_dataset(spec), open = open_dataset(spec);
    ASSERT_TRUE(open.train.in_files && open.test.in_files && !held.train.in_files);
    EXPECT_EQ(open.train.images.capacity() + open.test.images.capacity(), 0u);
    EXPECT_EQ(open.name, held.name);
    EXPECT_EQ(open.shape, held.shape);
    EXPECT_EQ(open.classes, held.classes);
    EXPECT_EQ(open.mean, held.mean);
    EXPECT_EQ(open.inv_std, held.inv_std);
    EXPECT_EQ(open.mean_image, held.mean_image);
    EXPECT_EQ(open.train.labels, held.train.labels);
    EXPECT_EQ(open.test.labels, held.test.labels);
    EXPECT_EQ(open.train.image_bytes(), held.train.images.size());
    EXPECT_EQ(all_images(open.train), held.train.images);
    EXPECT_EQ(all_images(open.test), held.test.images);

    for (const char* text : {"none", "standard:crop=2"}) {  // the latter with the mean image, shifts and mirrors
      SCOPED_TRACE(text);
      const Augmentation augmentation = parse_augmentation(text);
      Feed resident(*device, held, held.train, augmentation), copied(*device, open, open.train, augmentation);
      Feed streamed(*device, open, open.train, augmentation, FeedPlacement::streamed);
      Feed held_out(*device, held, held.test, augmentation);
      Feed held_out_streamed(*device, open, open.test, augmentation, FeedPlacement::streamed);
      const std::size_t batch = 8, count = held.train.count();
      BatchOrder order(count, batch, 3);
      FileBatch a(*device, held, batch), b(*device, held, batch), c(*device, held, batch);
      FileBatch two(*device, held, 2), same(*device, held, 2);
      for (std::uint64_t step = 0; step < 2 * order.steps_per_epoch() + 1; ++step) {
        const auto indices = order.batch(step);
        resident.load_augmented(indices, a.x, a.labels, 3, step);
        copied.load_augmented(indices, b.x, b.labels, 3, step);
        streamed.load_augmented(indices, c.x, c.labels, 3, step);
        ASSERT_TRUE(a == b && a == c) << step;
        if (step % 3 != 2) streamed.announce(order.batch(step + 1), 3, step + 1);
      }
      for (const std::size_t first : {0, 2, 4, 1}) {  // in sequence it is collected ahead
        held_out.load_range(first, two.x, two.labels);
        held_out_streamed.load_range(first, same.x, same.labels);
        ASSERT_TRUE(two == same) << first;
      }
    }
  }
}

TEST(ImageFiles, AreCheckedStrictlyWhenTheyAreOpened) {
  const auto error = [](const std::string& spec) { return user_error([&] { open_dataset(spec); }); };
  const TempDir dir;
  const std::string idx = "idx:" + dir.path().string(), ten = "cifar10-subset:" + dir.path().string(),
                    hundred = "cifar100-subset:" + dir.path().string();
  const fs::path images = dir / "train-images-idx3-ubyte";
  const auto write = [&] { test::write_idx_folder(dir.path(), 6, 5, 3, 4); };
  const auto length = [&](std::int64_t more) {
    write();
    fs::resize_file(images, static_cast<std::uintmax_t>(16 + 72 + more));
  };
  length(-1);
  EXPECT_TRUE(has(error(idx), "the header promises 72 data bytes, there are 71"));
  length(1);
  EXPECT_TRUE(has(error(idx), "trailing bytes after the 72 data bytes"));
  length(-80);
  EXPECT_TRUE(has(error(idx), "the header takes 16 bytes, the file has 8"));
  write();
  write_file_atomically(images, test::idx_images(0xffffffff, 0xffffffff, 0xffffffff, "a"));
  EXPECT_TRUE(has(error(idx), "absurd sizes"));
  write_file_atomically(images, test::idx_images(60, 1 << 15, 1 << 15, "a"));
  EXPECT_TRUE(has(error(idx), "promises 64424509440 data bytes, there are 1"));
  write_file_atomically(images, test::idx_images(0, 3, 4, ""));
  EXPECT_TRUE(has(error(idx), "no images in it"));
  write_file_atomically(images, test::idx_labels("abcdefghijklmnop"));
  EXPECT_TRUE(has(error(idx), "wrong magic number"));
  write_file_atomically(images, test::idx_images(7, 3, 4, test::some_bytes(84, 1)));
  EXPECT_TRUE(has(error(idx), "holds 7 images, but train-labels-idx1-ubyte holds 6 labels"));
  write_file_atomically(images, test::idx_images(6, 3, 4, std::string(72, 'a')));
  EXPECT_TRUE(has(error(idx), "all pixels of the training images are equal"));
  write();
  write_file_atomically(dir / "train-labels-idx1-ubyte", test::idx_labels(std::string("\0\1\2\3\4\12", 6)));
  EXPECT_TRUE(has(error("mnist:" + dir.path().string()), "there is a label 10"));

  test::write_cifar_folder(dir.path());
  fs::resize_file(dir / "data_batch_3.bin", 7 * 3073 - 1);
  EXPECT_TRUE(has(error(ten), "no whole number of records of 3073"));
  write_file_atomically(dir / "data_batch_3.bin", test::cifar_records(1, 1, 4) + '\x0a' + std::string(3072, 'a'));
  EXPECT_TRUE(has(error(ten), "record 1 has the label 10"));
  write_file_atomically(dir / "train.bin", "\x14\x05" + std::string(3072, 'a'));
  EXPECT_TRUE(has(error(hundred), "record 0 has the coarse label 20"));
}

// What is compressed cannot be read at any place.
TEST(ImageFiles, CompressedOnesAreHeldInMemory) {
  const TempDir dir;
  test::write_idx_folder(dir.path(), 12, 6, 3, 4);
  const std::string spec = "idx:" + dir.path().string();
  const fs::path plain = dir / "train-images-idx3-ubyte";
  const std::vector<std::uint8_t> before = load_dataset(spec).train.images;
  write_file_atomically(plain, test::gzipped(read_file(plain)));  // told apart by content, not by name
  const Dataset open = open_dataset(spec);
  EXPECT_FALSE(open.train.in_files);
  EXPECT_TRUE(open.test.in_files);
  EXPECT_EQ(open.train.images, before);
}

TEST(ImageFiles, AFileThatBecomesShorterIsOneClearError) {
  const TempDir dir;
  test::write_idx_folder(dir.path(), 40, 10, 9, 7);
  test::write_cifar_folder(dir.path());
  const std::unique_ptr<Backend> device = open_device("cpu", 1);
  for (const auto& [spec, file] : {std::pair("idx:", "train-images-idx3-ubyte"), {"cifar10-subset:", "data_batch_5.bin"}}) {
    SCOPED_TRACE(spec);
    const Dataset data = open_dataset(spec + dir.path().string());
    Feed feed(*device, data, data.train, {}, FeedPlacement::streamed);
    const std::vector<std::int32_t> whole = {0, 3}, cut = {1, static_cast<std::int32_t>(data.train.count()) - 1};
    FileBatch batch(*device, data, 2);
    feed.load(whole, batch.x, batch.labels);
    fs::resize_file(dir / file, fs::file_size(dir / file) - 1);
    const auto error = [&] { return user_error([&] { feed.load_augmented(cut, batch.x, batch.labels, 1, 1); }); };
    for (const bool announced : {false, true}) {
      if (announced) feed.announce(cut, 1, 1);  // read by the thread: thrown by the load
      const std::string text = error();
      EXPECT_TRUE(has(text, std::string("cannot read '") + (dir / file).string()) && has(text, "it has become shorter"));
    }
    feed.load(whole, batch.x, batch.labels);  // what is there can still be read
    feed.announce(cut, 1, 1);                 // a failure that nobody asks for
    EXPECT_TRUE(has(user_error([&] { Feed(*device, data, data.train); }), "it has become shorter"));
  }
}

}  // namespace
}  // namespace gradflow
