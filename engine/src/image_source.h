// Images that stay in their files and are read as they are wanted.
#pragma once

#include <cstdint>
#include <functional>
#include <span>

#include "gradflow/engine/dataset.h"

namespace gradflow {

class ImageSource {
 public:
  ImageSource(const ImageShape& shape, std::size_t count) : shape_(shape), count_(count) {}
  virtual ~ImageSource() = default;
  ImageSource(const ImageSource&) = delete;
  ImageSource& operator=(const ImageSource&) = delete;

  const ImageShape& shape() const noexcept { return shape_; }
  std::size_t count() const noexcept { return count_; }

  // The images from `first` on, [.., height, width, channels], as many as `out` has room for: whole ones, all below
  // count(). Several threads may read at once. UserError if a file cannot be read any more.
  virtual void read(std::size_t first, std::span<std::uint8_t> out) const = 0;

 private:
  ImageShape shape_;
  std::size_t count_;
};

// Brings the images of a split into memory, if they are not there.
void hold_images(DataSplit& split);

// Calls visit() with all images of a split in their order: at once where they lie in memory, else in runs of at most
// 1 MiB, or of one image that is larger.
void visit_images(const DataSplit& split, const std::function<void(std::span<const std::uint8_t>)>& visit);

}  // namespace gradflow
