// Images with labels, as training needs them: in host memory, or left in their files and read as they are wanted.
//
//   const Dataset data = load_dataset("fashion-mnist");   // or open_dataset()
//   BatchOrder order(data.train.count(), 128, seed);
//   order.batch(step);                             // which samples; Feed::load() makes numbers of them
//
// Pixels stay bytes and become numbers when a batch is gathered:
//   x = (pixel / 255 - mean) * inv_std,
// with mean and standard deviation over all pixels of the training images, so that training inputs have
// mean 0 and mean square 1 (what mean-field theory of deep networks assumes). The held-out images use
// the same two numbers.
//
// What load_dataset(), open_dataset() and outline_dataset() take:
//   fashion-mnist       Debian's package dataset-fashion-mnist, or the folder GRADFLOW_FASHION_MNIST
//   mnist:DIR           the four files of MNIST or a relative with 10 classes, plain or .gz
//   idx:DIR             the same file names with any sizes and up to 256 classes
//   cifar10:DIR         the six files data_batch_1.bin ... test_batch.bin of the binary version
//   cifar100:DIR        its train.bin and test.bin (fine labels)
//   cifar10-subset:DIR, cifar100-subset:DIR   the same with any number of images in a file: the published data have 10,000
//                       each (50,000 in train.bin), and the two above refuse anything else as a broken download
//   synthetic[:n=8192,test=2048,height=1,width=1,channels=784,features=,classes=10,noise=1,seed=1]
//                       features=N is short for channels=N; up to 65,536 classes; what it is: dataset_synthetic.cpp
//   half:SPEC           any of these with images of half the height and width, see halved_images
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace gradflow {

struct ImageShape {
  std::size_t height = 0, width = 0, channels = 0;
  std::size_t features() const { return height * width * channels; }
  bool operator==(const ImageShape&) const = default;
};

class ImageSource;  // engine/src/image_source.h

inline constexpr int kMaxClasses = 1 << 16;  // as many as labels of 16 bits tell apart

struct DataSplit {
  std::vector<std::uint8_t> images;   // [count, height, width, channels]; empty if they stay in files
  std::vector<std::uint16_t> labels;  // [count], each below Dataset::classes
  std::shared_ptr<const ImageSource> in_files{};  // null: they lie in `images`
  std::size_t count() const { return labels.size(); }
  std::size_t image_bytes() const;  // of all images, wherever they are
  // The images from `first` on, as many as `out` has room for: whole ones, all below count(). UserError if a file
  // cannot be read any more.
  void read_images(std::size_t first, std::span<std::uint8_t> out) const;
};

struct Dataset {
  std::string name;  // the text it was loaded from
  ImageShape shape;
  int classes = 0;  // 2 to kMaxClasses
  DataSplit train, test;
  double mean = 0, inv_std = 1;
  std::vector<float> mean_image;  // over train, [height, width, channels], in [0, 1]
};

// UserError, one line: unknown name or key, files that are missing or faulty (see idx.h), images and
// labels of different count, train and test of different size, a label beyond the classes.
Dataset load_dataset(std::string_view spec);

// The same data, strictly checked in the same way, but images stay in their files if these can be read piece by
// piece: those of CIFAR, IDX files that are not compressed, and the halves of both. Nothing that grows with the
// images is held then, only the labels, two bytes a sample: files may be larger than the memory. They must stay as
// they are; what reads an image from a file that has become shorter throws UserError.
Dataset open_dataset(std::string_view spec);

// Name, shape and classes, all that planning needs: files are opened and checked as open_dataset() does, but what is
// synthetic is not made, its train and test are empty.
Dataset outline_dataset(std::string_view spec);

// The same with each pixel the rounded mean of 2x2 of the original, per channel: a quarter of the work for a
// convolution. An odd last row or column is left out. Mean and deviation are those of the new training images;
// the name gets "half:" in front. UserError for images of fewer than 2x2 pixels.
Dataset halved_images(const Dataset& data);

// Which examples the batch of a step holds. Each epoch takes every example at most once, in an order
// drawn from (seed, epoch); the count % batch examples that fill no whole batch are left out of that
// epoch (others in the next). A step's batch depends on (count, batch, seed, step) only, so a resumed
// run needs nothing but its step number.
class BatchOrder {
 public:
  // UserError if the batch is 0 or larger than the data set.
  BatchOrder(std::size_t count, std::size_t batch, std::uint64_t seed);

  std::size_t steps_per_epoch() const { return count_ / batch_; }
  std::uint64_t epoch_of(std::uint64_t step) const { return step / steps_per_epoch(); }

  // `batch` indices, each below `count`. They lie in the order of the step's epoch, which is kept until a step of
  // another one is asked for.
  std::span<const std::int32_t> batch(std::uint64_t step) &;

 private:
  std::size_t count_, batch_;
  std::uint64_t seed_;
  std::uint64_t epoch_ = 0;
  std::vector<std::int32_t> order_;  // of epoch_; empty before the first call
};

// mean, inv_std and mean_image of `data` from its training images, exactly summed, in one pass. UserError if all
// pixels are equal.
void normalize_inputs(Dataset& data);

}  // namespace gradflow
