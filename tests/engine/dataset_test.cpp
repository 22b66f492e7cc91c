#include "gradflow/engine/dataset.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <set>

#include "engine/dataset_error.h"
#include "engine/idx_bytes.h"
#include "engine/temp_dir.h"
#include "gradflow/engine/file.h"

namespace gradflow {
namespace {

using test::gzipped;
using test::has;
using test::load_error;
using test::idx_images;
using test::idx_labels;
using test::TempDir;
using test::user_error;
namespace fs = std::filesystem;

// Three training images and two held-out ones of 1 x 2 pixels.
void write_small(const TempDir& dir, const std::string& train_labels = std::string("\0\1\2", 3)) {
  const std::string pixels = {0, '\xff', '\x33', '\x66', '\x99', '\xcc'};
  write_file_atomically(dir / "train-images-idx3-ubyte", idx_images(3, 1, 2, pixels));
  write_file_atomically(dir / "train-labels-idx1-ubyte", idx_labels(train_labels));
  write_file_atomically(dir / "t10k-images.idx3-ubyte.gz", gzipped(idx_images(2, 1, 2, "abcd")));
  write_file_atomically(dir / "t10k-labels.idx1-ubyte", idx_labels(std::string("\1\0", 2)));
}

TEST(Dataset, ReadsAFolderOfIdxFiles) {
  TempDir dir;
  write_small(dir);
  const Dataset data = load_dataset("idx:" + dir.path().string());
  EXPECT_EQ(data.shape, (ImageShape{1, 2, 1}));
  EXPECT_EQ(data.classes, 3);
  EXPECT_EQ(data.train.count(), 3u);
  EXPECT_EQ(data.test.count(), 2u);
  EXPECT_EQ(data.test.images, (std::vector<std::uint8_t>{'a', 'b', 'c', 'd'}));
  // Pixels 0, 1, 0.2, 0.4, 0.6, 0.8: mean 1/2, variance (0.5^2 + 0.3^2 + 0.1^2) / 3 = 7/60.
  EXPECT_NEAR(data.mean, 0.5, 1e-15);
  EXPECT_NEAR(data.inv_std, std::sqrt(60.0 / 7), 1e-14);
  EXPECT_EQ(load_dataset("mnist:" + dir.path().string()).classes, 10);
}

TEST(Dataset, FaultsOfAFolderAreNamed) {
  TempDir dir;
  const std::string idx = "idx:" + dir.path().string(), mnist = "mnist:" + dir.path().string();
  EXPECT_TRUE(has(load_error(idx), "no train-images-idx3-ubyte or train-images-idx3-ubyte.gz"));
  write_small(dir, std::string("\0\1", 2));
  EXPECT_TRUE(has(load_error(idx), "holds 3 images, but train-labels-idx1-ubyte holds 2 labels"));
  write_small(dir, std::string("\0\1\12", 3));
  EXPECT_TRUE(has(load_error(mnist), "there is a label 10, but only the 10 classes 0 to 9"));
  EXPECT_EQ(load_dataset(idx).classes, 11);
  write_small(dir);
  write_file_atomically(dir / "t10k-images.idx3-ubyte.gz", idx_images(2, 2, 1, "abcd"));
  EXPECT_TRUE(has(load_error(idx), "training images are 1 x 2, held-out images 2 x 1"));
  write_small(dir);
  write_file_atomically(dir / "train-images-idx3-ubyte", idx_images(3, 1, 2, "aaaaaa"));
  EXPECT_TRUE(has(load_error(idx), "all pixels of the training images are equal"));
  write_small(dir);
  fs::remove(dir / "t10k-labels.idx1-ubyte");
  EXPECT_TRUE(has(load_error(idx), "no t10k-labels-idx1-ubyte"));
  EXPECT_TRUE(has(load_error("idx:" + (dir / "none").string()), "there is no folder"));
}

TEST(Dataset, FaultsOfTheTextAreNamed) {
  EXPECT_TRUE(has(load_error("fashion-mnits"), "did you mean 'fashion-mnist'? (names: fashion-mnist, mnist"));
  EXPECT_TRUE(has(load_error(""), "the name is missing"));
  EXPECT_TRUE(has(load_error("mnist"), "expected mnist:DIR"));
  EXPECT_TRUE(has(load_error("idx:"), "expected idx:DIR"));
  EXPECT_TRUE(has(load_error("fashion-mnist:n=3"), "takes no keys"));
  EXPECT_TRUE(has(load_error("synthetic:clases=3"), "did you mean 'classes'?"));
  EXPECT_TRUE(has(load_error("synthetic:classes=1"), "from 2 to 65536"));
  EXPECT_TRUE(has(load_error("synthetic:noise=nan"), "noise=nan"));
  EXPECT_TRUE(has(load_error("synthetic:features=4,height=2"), "cannot stand beside"));
  EXPECT_TRUE(has(load_error("synthetic:height=1000000,width=1000000,channels=1000000"), "more than 16 GiB"));
  EXPECT_TRUE(has(load_error("synthetic:n=1000000000,features=1000000"), "more than 16 GiB"));
}

TEST(Dataset, FashionMnistSaysWhatToInstall) {
  TempDir dir;
  const char* const set = std::getenv("GRADFLOW_FASHION_MNIST");
  const std::string kept = set ? set : "";
  ::setenv("GRADFLOW_FASHION_MNIST", (dir / "none").c_str(), 1);
  EXPECT_TRUE(has(load_error("fashion-mnist"), "GRADFLOW_FASHION_MNIST names the folder"));
  write_small(dir);
  ::setenv("GRADFLOW_FASHION_MNIST", dir.path().c_str(), 1);
  EXPECT_EQ(load_dataset("fashion-mnist").train.count(), 3u);
  ::unsetenv("GRADFLOW_FASHION_MNIST");
  if (!fs::exists("/usr/share/datasets/fashion-mnist")) {
    EXPECT_TRUE(has(load_error("fashion-mnist"), "dataset-fashion-mnist"));
  }
  if (set) ::setenv("GRADFLOW_FASHION_MNIST", kept.c_str(), 1);
}

TEST(Dataset, FashionMnistIsWhole) {
  const Dataset data = load_dataset("fashion-mnist");
  EXPECT_EQ(data.shape, (ImageShape{28, 28, 1}));
  EXPECT_EQ(data.classes, 10);
  EXPECT_EQ(data.train.count(), 60'000u);
  EXPECT_EQ(data.test.count(), 10'000u);
  for (int k = 0; k < 10; ++k) {
    EXPECT_EQ(std::count(data.train.labels.begin(), data.train.labels.end(), k), 6000);
    EXPECT_EQ(std::count(data.test.labels.begin(), data.test.labels.end(), k), 1000);
  }
  // The widely quoted mean and standard deviation of this data set's training pixels.
  EXPECT_NEAR(data.mean, 0.2860, 5e-5);
  EXPECT_NEAR(1 / data.inv_std, 0.3530, 5e-5);
}

// A linear softmax classifier, trained by plain gradient descent: the share of held-out examples right.
double linear_accuracy(const Dataset& data, int steps, double rate) {
  const std::size_t f = data.shape.features(), k = static_cast<std::size_t>(data.classes), batch = 64;
  std::vector<double> w(k * f, 0.0), logits(k), x(f);
  BatchOrder order(data.train.count(), batch, 1);
  const auto forward = [&](const DataSplit& split, std::size_t row) {
    for (std::size_t i = 0; i < f; ++i) x[i] = (split.images[row * f + i] / 255.0 - data.mean) * data.inv_std;
    for (std::size_t c = 0; c < k; ++c) {
      logits[c] = 0;
      for (std::size_t i = 0; i < f; ++i) logits[c] += w[c * f + i] * x[i];
    }
  };
  for (int step = 0; step < steps; ++step) {
    for (std::int32_t index : order.batch(static_cast<std::uint64_t>(step))) {
      const auto row = static_cast<std::size_t>(index);
      forward(data.train, row);
      const double top = *std::max_element(logits.begin(), logits.end());
      double sum = 0;
      for (double& v : logits) sum += v = std::exp(v - top);
      for (std::size_t c = 0; c < k; ++c) {
        const double d = logits[c] / sum - (data.train.labels[row] == c ? 1 : 0);
        for (std::size_t i = 0; i < f; ++i) w[c * f + i] -= rate / static_cast<double>(batch) * d * x[i];
      }
    }
  }
  std::size_t right = 0;
  for (std::size_t row = 0; row < data.test.count(); ++row) {
    forward(data.test, row);
    const auto best = std::max_element(logits.begin(), logits.end()) - logits.begin();
    right += best == data.test.labels[row];
  }
  return static_cast<double>(right) / static_cast<double>(data.test.count());
}

TEST(Dataset, SyntheticCanBeLearnedButNotWholly) {
  const double easy = linear_accuracy(load_dataset("synthetic:features=64"), 600, 0.1);
  EXPECT_TRUE(easy > 0.90 && easy < 0.995) << easy;
  const double image = linear_accuracy(load_dataset("synthetic:height=12,width=12"), 600, 0.1);
  EXPECT_TRUE(image > 0.90 && image < 0.995) << image;
  const double noiseless = linear_accuracy(load_dataset("synthetic:features=64,noise=0"), 200, 0.1);
  EXPECT_EQ(noiseless, 1.0);
  const double hopeless = linear_accuracy(load_dataset("synthetic:features=64,noise=1000"), 200, 0.1);
  EXPECT_TRUE(hopeless > 0.05 && hopeless < 0.16) << hopeless;  // ten classes: chance is 0.1
}

TEST(Dataset, SyntheticFollowsItsText) {
  const Dataset data = load_dataset("synthetic:n=100,test=30,height=9,width=10,channels=3,classes=7,seed=5");
  EXPECT_EQ(data.shape, (ImageShape{9, 10, 3}));
  EXPECT_EQ(data.classes, 7);
  EXPECT_EQ(data.train.images.size(), 100u * 270u);
  EXPECT_EQ(data.test.images.size(), 30u * 270u);
  const Dataset again = load_dataset("synthetic:n=100,test=30,height=9,width=10,channels=3,classes=7,seed=5");
  EXPECT_EQ(data.train.images, again.train.images);
  const Dataset other = load_dataset("synthetic:n=100,test=30,height=9,width=10,channels=3,classes=7,seed=6");
  EXPECT_NE(data.train.images, other.train.images);
  EXPECT_NE(std::vector(data.train.images.begin(), data.train.images.begin() + 30 * 270), data.test.images);
  EXPECT_EQ(load_dataset("synthetic:features=20").shape, (ImageShape{1, 1, 20}));
  EXPECT_EQ(load_dataset("synthetic:height=20").shape, (ImageShape{20, 1, 1}));
  // Longer sets begin with the same examples.
  const Dataset longer =
      load_dataset("synthetic:n=700,test=30,height=9,width=10,channels=3,classes=7,seed=5");
  EXPECT_TRUE(std::equal(data.train.images.begin(), data.train.images.end(), longer.train.images.begin()));
}

TEST(Dataset, AsManyClassesAsLabelsTellApart) {
  const Dataset data = load_dataset("synthetic:features=1,n=65537,test=3,classes=65536");
  EXPECT_EQ(data.train.labels[65535], 65535);
  EXPECT_EQ(data.train.labels[65536], 0);
  EXPECT_TRUE(has(load_error("synthetic:classes=65537"), "from 2 to 65536"));
  // Only the three classes that occur take memory; all would take 262 GB.
  EXPECT_EQ(load_dataset("synthetic:height=1,width=1000,channels=1000,n=3,test=1,classes=65536").train.labels.back(), 2);
}

TEST(Dataset, AnOutlineHasNoImagesToMake) {
  const std::string spec = "synthetic:height=224,width=225,channels=3,classes=1000";
  const Dataset outline = outline_dataset(spec), half = outline_dataset("half:" + spec);
  EXPECT_EQ(outline.name, spec);
  EXPECT_EQ(outline.shape, (ImageShape{224, 225, 3}));
  EXPECT_EQ(outline.classes, 1000);
  EXPECT_EQ(outline.train.count() + outline.test.count(), 0u);
  EXPECT_EQ(half.shape, (ImageShape{112, 112, 3}));
  EXPECT_EQ(half.classes, 1000);
  EXPECT_TRUE(has(user_error([] { outline_dataset("synthetic:n=1000000000,features=1000000"); }), "more than 16 GiB"));
  EXPECT_TRUE(has(user_error([] { outline_dataset("half:synthetic"); }), "cannot be halved"));
  const TempDir dir;
  write_small(dir);
  EXPECT_EQ(outline_dataset("idx:" + dir.path().string()).classes, 3);
}

TEST(BatchOrder, EachEpochTakesEveryExampleAtMostOnce) {
  BatchOrder order(103, 10, 7);
  EXPECT_EQ(order.steps_per_epoch(), 10u);
  const auto batch_of = [](BatchOrder& from, std::uint64_t step) {
    const auto batch = from.batch(step);
    return std::vector(batch.begin(), batch.end());
  };
  std::vector<std::vector<std::int32_t>> steps;
  std::set<std::int32_t> left_out;
  for (std::uint64_t epoch = 0; epoch < 20; ++epoch) {
    std::set<std::int32_t> seen;
    for (std::uint64_t s = 0; s < 10; ++s) {
      EXPECT_EQ(order.epoch_of(epoch * 10 + s), epoch);
      steps.push_back(batch_of(order, epoch * 10 + s));
      EXPECT_EQ(steps.back().size(), 10u);
      seen.insert(steps.back().begin(), steps.back().end());
    }
    EXPECT_EQ(seen.size(), 100u);
    EXPECT_TRUE(*seen.begin() >= 0 && *seen.rbegin() < 103);
    for (std::int32_t i = 0; i < 103; ++i)
      if (!seen.contains(i)) left_out.insert(i);
  }
  EXPECT_GT(left_out.size(), 20u);  // not the same three each time
  EXPECT_NE(steps[0], steps[10]);
  // Any step, in any order, from a fresh object: what resuming does.
  for (std::uint64_t step : {199u, 0u, 57u, 58u, 11u}) {
    BatchOrder fresh(103, 10, 7);
    EXPECT_EQ(batch_of(fresh, step), steps[step]) << step;
  }
  BatchOrder other(103, 10, 8);
  EXPECT_NE(batch_of(other, 0), steps[0]);
}

Dataset checkered(std::size_t height, std::size_t width, std::size_t channels) {
  Dataset data;
  data.name = "test";
  data.shape = {height, width, channels};
  data.classes = 2;
  for (DataSplit* split : {&data.train, &data.test}) {
    for (std::size_t i = 0; i < 2 * data.shape.features(); ++i)
      split->images.push_back(static_cast<std::uint8_t>(7 * i * i + 3));
    split->labels = {0, 1};
  }
  normalize_inputs(data);
  return data;
}

TEST(HalvedImages, AreMeansOfFourPixels) {
  const Dataset data = checkered(5, 6, 3), half = halved_images(data);  // the fifth row is left out
  EXPECT_EQ(half.shape, (ImageShape{2, 3, 3}));
  EXPECT_EQ(half.train.labels, data.train.labels);
  const auto pixel = [](const Dataset& d, std::size_t n, std::size_t y, std::size_t x, std::size_t c) -> int {
    return d.test.images[((n * d.shape.height + y) * d.shape.width + x) * d.shape.channels + c];
  };
  double sum = 0;
  for (std::size_t n = 0; n < 2; ++n)
    for (std::size_t y = 0; y < 2; ++y)
      for (std::size_t x = 0; x < 3; ++x)
        for (std::size_t c = 0; c < 3; ++c) {
          const double mean =
              (pixel(data, n, 2 * y, 2 * x, c) + pixel(data, n, 2 * y, 2 * x + 1, c) +
               pixel(data, n, 2 * y + 1, 2 * x, c) + pixel(data, n, 2 * y + 1, 2 * x + 1, c)) /
              4.0;
          EXPECT_EQ(pixel(half, n, y, x, c), static_cast<int>(std::floor(mean + 0.5)));
          sum += pixel(half, n, y, x, c);
        }
  EXPECT_NEAR(half.mean, sum / (2 * 18) / 255, 1e-12);  // training and test images are equal here
}

TEST(HalvedImages, AreADataSetOfTheirOwn) {
  const std::string spec = "synthetic:n=16,test=8,height=5,width=8,channels=2";
  const Dataset half = load_dataset("half:" + spec);
  EXPECT_EQ(half.name, "half:" + spec);
  EXPECT_EQ(half.train.images, halved_images(load_dataset(spec)).train.images);
  EXPECT_EQ(load_dataset("half:half:" + spec).shape, (ImageShape{1, 2, 2}));
  EXPECT_TRUE(has(load_error("half:synthetic:n=16,test=8"), "1x1 pixels cannot be halved"));
  EXPECT_TRUE(has(load_error("half:synthetik"), "did you mean 'synthetic'"));
  EXPECT_TRUE(has(load_error("half:"), "data"));
}

TEST(BatchOrder, RefusesABatchThatDoesNotFit) {
  EXPECT_TRUE(has(user_error([] { BatchOrder(100, 101, 1); }),
                  "101 examples is larger than the data set, which has 100"));
  EXPECT_TRUE(has(user_error([] { BatchOrder(100, 0, 1); }), "at least 1"));
  BatchOrder whole(100, 100, 1);
  EXPECT_EQ(whole.steps_per_epoch(), 1u);
}

}  // namespace
}  // namespace gradflow
