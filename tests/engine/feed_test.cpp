// Batches from a data set on the device and batches handed over one by one: the same bits.
#include "gradflow/engine/feed.h"

#include <gtest/gtest.h>

#include <cstring>
#include <random>

#include "engine/expect_error.h"
#include "gradflow/engine/device.h"
#include "gradflow/engine/memory.h"

namespace gradflow {
namespace {

Dataset feed_data() { return load_dataset("synthetic:height=7,width=6,channels=2,n=200,test=30,classes=5"); }

// x and labels on a device, and their bytes.
struct FeedBatch {
  FeedBatch(Backend& device, std::int64_t samples)
      : memory(device, static_cast<std::size_t>(samples) * 85 * 4),
        x{memory.data(), {{samples, 7, 6, 2}, DType::f32}},
        labels{memory.at(static_cast<std::size_t>(samples) * 84 * 4), {{samples}, DType::i32}} {}
  std::vector<std::byte> bytes() const {
    std::vector<std::byte> all(memory.bytes());
    std::memcpy(all.data(), memory.data(), all.size());
    return all;
  }
  DeviceMemory memory;
  Tensor x, labels;
};

TEST(Feed, StreamedBatchesHaveTheBitsOfResidentOnes) {
  const std::unique_ptr<Backend> device = open_device("cpu", 2);
  Dataset data = feed_data();
  for (const char* text : {"none", "standard:crop=2", "standard:crop=1,flip=off,mean=one"}) {
    const Augmentation augmentation = parse_augmentation(text);
    Feed resident(*device, data, data.train, augmentation);
    Feed streamed(*device, data, data.train, augmentation, FeedPlacement::streamed);
    EXPECT_EQ(resident.placement(), FeedPlacement::resident);
    EXPECT_EQ(streamed.placement(), FeedPlacement::streamed);
    EXPECT_EQ(streamed.count(), 200u);
    BatchOrder order(200, 32, 4);
    FeedBatch a(*device, 32), b(*device, 32), few(*device, 7), few2(*device, 7);
    for (std::uint64_t step = 0; step < 20; ++step) {
      const auto indices = order.batch(step);
      resident.load_augmented(indices, a.x, a.labels, 4, step);
      streamed.load_augmented(indices, b.x, b.labels, 4, step);
      ASSERT_EQ(a.bytes(), b.bytes()) << text << " step " << step;
      // Announced and then asked for; announced twice; announced, and something else asked for; not announced.
      if (step % 4 == 3) continue;
      const auto next = order.batch(step + 1);
      streamed.announce(next, 4, step + 1);
      if (step % 4 == 1) streamed.announce(next, 4, step + 1);
      if (step % 4 != 2) continue;
      resident.load_range(step, few.x, few.labels);
      streamed.load_range(step, few2.x, few2.labels);
      ASSERT_EQ(few.bytes(), few2.bytes());
    }
    streamed.announce(order.batch(99), 4, 99);  // and gone before anybody asks
  }
}

// In two parts, as a recorded step wants it: what is staged, then one launch that can be repeated.
TEST(Feed, StagedBatchesHaveTheBitsOfLoadedOnes) {
  const std::unique_ptr<Backend> device = open_device("cpu", 2);
  const Dataset data = feed_data();
  for (const char* text : {"none", "standard:crop=2"}) {
    Feed feed(*device, data, data.train, parse_augmentation(text));
    FeedBatch loaded(*device, 32), gathered(*device, 32);
    BatchOrder order(200, 32, 4);
    for (std::uint64_t step = 0; step < 3; ++step) {
      const auto indices = order.batch(step);
      feed.load_augmented(indices, loaded.x, loaded.labels, 4, step);
      feed.stage(indices, 4, step);
      for (int again = 0; again < 2; ++again) {
        device->zero(gathered.memory.data(), gathered.memory.bytes());
        feed.gather(gathered.x, gathered.labels);
        ASSERT_EQ(gathered.bytes(), loaded.bytes()) << text << " step " << step;
      }
    }
    FeedBatch few(*device, 7);
    EXPECT_THROW(feed.gather(few.x, few.labels), InternalError);
    Feed streamed(*device, data, data.train, {}, FeedPlacement::streamed);
    EXPECT_THROW(streamed.stage(order.batch(0), 4, 0), InternalError);
  }
}

// More classes than a byte tells apart; 3 features, so that nothing is aligned by chance.
TEST(Feed, LabelsBeyondAByte) {
  const std::unique_ptr<Backend> device = open_device("cpu", 1);
  const Dataset data = load_dataset("synthetic:features=3,n=1500,test=8,classes=1000");
  EXPECT_EQ(data.classes, 1000);
  const std::vector<std::int32_t> indices = {999, 256, 1255, 0, 1499};
  for (const FeedPlacement placement : {FeedPlacement::resident, FeedPlacement::streamed}) {
    Feed feed(*device, data, data.train, {}, placement);
    std::vector<float> x(15);
    std::vector<std::int32_t> labels(5);
    feed.load(indices, {x.data(), {{5, 3}}}, {labels.data(), {{5}, DType::i32}});
    EXPECT_EQ(labels, (std::vector<std::int32_t>{999, 256, 255, 0, 499}));  // classes take turns
    for (std::size_t i = 0; i < x.size(); ++i) {
      const double pixel = data.train.images[static_cast<std::size_t>(indices[i / 3]) * 3 + i % 3];
      EXPECT_NEAR(x[i], (pixel / 255 - data.mean) * data.inv_std, 1e-6);  // a few roundings of |x| < 4
    }
  }
}

// The split may move to another place; its pixels stay.
TEST(Feed, OutlivesAMoveOfItsData) {
  const std::unique_ptr<Backend> device = open_device("cpu", 1);
  Dataset first = feed_data();
  Feed resident(*device, first, first.train), streamed(*device, first, first.train, {}, FeedPlacement::streamed);
  const Dataset moved = std::move(first);
  Feed elsewhere = std::move(streamed);
  FeedBatch a(*device, 5), b(*device, 5);
  resident.load_range(3, a.x, a.labels);
  elsewhere.load_range(3, b.x, b.labels);
  EXPECT_EQ(a.bytes(), b.bytes());
}

TEST(Feed, StreamedLoadsAreChecked) {
  const std::unique_ptr<Backend> device = open_device("cpu", 1);
  const Dataset data = feed_data();
  Feed streamed(*device, data, data.train, {}, FeedPlacement::streamed);
  FeedBatch a(*device, 5);
  const std::vector<std::int32_t> four = {0, 1, 2, 3};
  test::expect_error([&] { streamed.load(four, a.x, a.labels); }, "4 samples of 84 features do not fit");
  test::expect_error([&] { streamed.load_range(197, a.x, a.labels); }, "samples 197 to 202 of 200");
}

// A device with the memory a test gives it.
TEST(Feed, StreamsWhereTheDataDoNotFit) {
  const std::unique_ptr<Backend> device = open_device("cpu", 1);
  const Dataset data = feed_data();
  EXPECT_EQ(Feed::choose(*device, data.train, 0), FeedPlacement::resident);
  EXPECT_EQ(Feed::choose(*device, data.train, std::size_t{1} << 60), FeedPlacement::streamed);
}

}  // namespace
}  // namespace gradflow
