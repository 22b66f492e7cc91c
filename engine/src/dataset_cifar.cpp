// CIFAR in its binary form: records without any header, hence checked by length and by their labels.
//
//   CIFAR-10    data_batch_1.bin ... data_batch_5.bin, test_batch.bin: label, then 3072 pixels
//   CIFAR-100   train.bin, test.bin: coarse label (0..19), fine label (0..99), then 3072 pixels
//
// Pixels lie as three planes (red, green, blue) of 32 x 32; here they become [32, 32, 3].
// Source: Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009, and its download page.
#include "dataset_cifar.h"

#include <fmt/format.h>

#include <string>
#include <vector>

#include "gradflow/engine/file.h"
#include "gradflow/engine/text.h"
#include "gradflow/kernels/error.h"

namespace gradflow {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t kSide = 32, kChannels = 3, kPlane = kSide * kSide, kPixels = kPlane * kChannels;
constexpr int kCoarseClasses = 20;

void check_label(const fs::path& file, std::size_t record, const char* kind, std::uint8_t label,
                 int classes) {
  if (label < classes) return;
  throw UserError(fmt::format(
      "{}: record {} has the {} {}, but only 0 to {} exist: this is no CIFAR file or a damaged one",
      quote(file.string(), 400), record, kind, label, classes - 1));
}

void append_file(const fs::path& file, int classes, DataSplit& split) {
  const std::string bytes = read_file(file);
  const std::size_t labels = classes == 100 ? 2 : 1, record = labels + kPixels;
  if (bytes.empty() || bytes.size() % record != 0)
    throw UserError(fmt::format("{} has {} bytes, which is no whole number of records of {}",
                                quote(file.string(), 400), bytes.size(), record));
  const std::size_t count = bytes.size() / record, before = split.count();
  split.labels.resize(before + count);
  split.images.resize((before + count) * kPixels);
  for (std::size_t r = 0; r < count; ++r) {
    const auto* from = reinterpret_cast<const std::uint8_t*>(bytes.data()) + r * record;
    if (labels == 2) check_label(file, r, "coarse label", from[0], kCoarseClasses);
    const std::uint8_t label = from[labels - 1];
    check_label(file, r, "label", label, classes);
    split.labels[before + r] = label;
    std::uint8_t* image = split.images.data() + (before + r) * kPixels;
    for (std::size_t p = 0; p < kPlane; ++p)
      for (std::size_t c = 0; c < kChannels; ++c) image[p * kChannels + c] = from[labels + c * kPlane + p];
  }
}

}  // namespace

Dataset read_cifar(std::string_view spec, const fs::path& given, int classes) {
  const char* inside =
      classes == 100 ? "cifar-100-binary" : "cifar-10-batches-bin";  // as the archives unpack
  const std::string last = classes == 100 ? "test.bin" : "test_batch.bin";
  std::error_code ignored;
  if (!fs::is_directory(given, ignored))
    throw UserError(fmt::format("data {}: there is no folder {}", quote(spec), quote(given.string(), 400)));
  const fs::path folder = !fs::exists(given / last, ignored) && fs::is_directory(given / inside, ignored)
                              ? given / inside
                              : given;
  std::vector<std::string> training;
  if (classes == 100) {
    training = {"train.bin"};
  } else {
    for (int i = 1; i <= 5; ++i) training.push_back(fmt::format("data_batch_{}.bin", i));
  }
  for (const std::string& name : training)
    if (!fs::exists(folder / name, ignored))
      throw UserError(
          fmt::format("data {}: no {} in the folder {}", quote(spec), name, quote(folder.string(), 400)));
  if (!fs::exists(folder / last, ignored))
    throw UserError(
        fmt::format("data {}: no {} in the folder {}", quote(spec), last, quote(folder.string(), 400)));

  Dataset data;
  data.name = spec;
  data.shape = {kSide, kSide, kChannels};
  data.classes = classes;
  for (const std::string& name : training) append_file(folder / name, classes, data.train);
  append_file(folder / last, classes, data.test);
  normalize_inputs(data);
  return data;
}

}  // namespace gradflow
