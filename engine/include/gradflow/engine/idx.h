// IDX files, the format of MNIST and its relatives: a big-endian header, then one byte a value.
//   images: 00 00 08 03 | count | height | width | count*height*width bytes
//   labels: 00 00 08 01 | count | count bytes
// Plain or gzip-compressed, told apart by content. The format: http://yann.lecun.com/exdb/mnist/.
//
// Every fault (missing, truncated, trailing bytes, wrong magic number, damaged compression, absurd
// sizes) throws UserError, one line that names the file. No more memory is taken than the file has
// data, whatever its header claims, and none for more than 64 GiB.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <vector>

namespace gradflow {

struct IdxImages {
  std::size_t count = 0, height = 0, width = 0;
  std::vector<std::uint8_t> pixels;  // [count, height, width]
};

IdxImages read_idx_images(const std::filesystem::path& path);
std::vector<std::uint16_t> read_idx_labels(const std::filesystem::path& path);  // 0 to 255 each

}  // namespace gradflow
