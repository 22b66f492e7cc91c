#include "image_source.h"

#include <algorithm>
#include <utility>

namespace gradflow {

std::size_t DataSplit::image_bytes() const {
  return in_files ? in_files->count() * in_files->shape().features() : images.size();
}

void DataSplit::read_images(std::size_t first, std::span<std::uint8_t> out) const {
  if (in_files) return in_files->read(first, out);
  const std::size_t features = images.size() / count();
  std::copy_n(images.data() + first * features, out.size(), out.data());
}

void hold_images(DataSplit& split) {
  if (!split.in_files) return;
  std::vector<std::uint8_t> images(split.image_bytes());
  split.read_images(0, images);
  split.images = std::move(images);
  split.in_files.reset();
}

void visit_images(const DataSplit& split, const std::function<void(std::span<const std::uint8_t>)>& visit) {
  if (!split.in_files) return visit(split.images);
  constexpr std::size_t kBytesAtOnce = std::size_t{1} << 20;
  const std::size_t features = split.in_files->shape().features(), count = split.count();
  const std::size_t at_once = std::clamp<std::size_t>(kBytesAtOnce / features, 1, count);
  std::vector<std::uint8_t> run(at_once * features);
  for (std::size_t first = 0; first < count; first += at_once) {
    const auto some = std::span(run).first(std::min(at_once, count - first) * features);
    split.read_images(first, some);
    visit(some);
  }
}

}  // namespace gradflow
