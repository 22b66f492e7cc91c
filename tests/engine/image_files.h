// Folders of image files for tests, their pixels drawn from nothing in particular.
#pragma once

#include <string>

#include "engine/idx_bytes.h"
#include "engine/temp_dir.h"
#include "gradflow/engine/file.h"

namespace gradflow::test {

inline std::string some_bytes(std::size_t count, std::uint32_t salt) {
  std::string bytes(count, '\0');
  for (std::size_t i = 0; i < count; ++i)
    bytes[i] = static_cast<char>((static_cast<std::uint32_t>(i) + salt) * 2654435761u >> 13);
  return bytes;
}

// `count` labels 0 .. classes - 1 in turn.
inline std::string labels_in_turn(std::size_t count, int classes) {
  std::string labels(count, '\0');
  for (std::size_t i = 0; i < count; ++i) labels[i] = static_cast<char>(i % static_cast<std::size_t>(classes));
  return labels;
}

// IDX files of 5 classes with `train` and `held_out` images of height x width.
inline void write_idx_folder(const std::filesystem::path& folder, std::uint32_t train, std::uint32_t held_out,
                             std::uint32_t height, std::uint32_t width) {
  const auto write = [&](const std::string& prefix, std::uint32_t count) {
    write_file_atomically(folder / (prefix + "-images-idx3-ubyte"),
                          idx_images(count, height, width, some_bytes(std::size_t{count} * height * width, count)));
    write_file_atomically(folder / (prefix + "-labels-idx1-ubyte"), idx_labels(labels_in_turn(count, 5)));
  };
  write("train", train);
  write("t10k", held_out);
}

// `count` records of CIFAR-10 (one label) or of CIFAR-100 (two).
inline std::string cifar_records(std::size_t count, int labels, std::uint32_t salt) {
  std::string bytes;
  for (std::size_t i = 0; i < count; ++i) {
    const char label = static_cast<char>((i + salt) % 10);
    bytes += std::string(static_cast<std::size_t>(labels), label);
    bytes += some_bytes(3072, salt * 1000 + static_cast<std::uint32_t>(i));
  }
  return bytes;
}

// Both CIFARs in one folder: 5 files of 7 training images (100: one of 35) and 6 held-out ones.
inline void write_cifar_folder(const std::filesystem::path& folder) {
  for (std::uint32_t i = 1; i <= 5; ++i)
    write_file_atomically(folder / ("data_batch_" + std::to_string(i) + ".bin"), cifar_records(7, 1, i));
  write_file_atomically(folder / "test_batch.bin", cifar_records(6, 1, 6));
  write_file_atomically(folder / "train.bin", cifar_records(35, 2, 7));
  write_file_atomically(folder / "test.bin", cifar_records(6, 2, 8));
}

}  // namespace gradflow::test
