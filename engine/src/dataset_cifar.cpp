// CIFAR in its binary form: records without any header, hence checked by length and by their labels.
//
//   CIFAR-10    data_batch_1.bin ... data_batch_5.bin, test_batch.bin: label, then 3072 pixels
//   CIFAR-100   train.bin, test.bin: coarse label (0..19), fine label (0..99), then 3072 pixels
//
// Pixels lie as three planes (red, green, blue) of 32 x 32; here they become [32, 32, 3].
// Source: Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009, and its download page.
#include "dataset_cifar.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "gradflow/engine/file.h"
#include "gradflow/engine/text.h"
#include "gradflow/kernels/error.h"
#include "image_source.h"

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

struct CifarFile {
  PiecewiseFile file;
  std::size_t first, count;  // images of the split
};

class CifarSource final : public ImageSource {
 public:
  CifarSource(std::vector<CifarFile> files, std::size_t labels)
      : ImageSource({kSide, kSide, kChannels}, files.back().first + files.back().count),
        files_(std::move(files)),
        labels_(labels) {}

  void read(std::size_t first, std::span<std::uint8_t> out) const override {
    std::array<std::uint8_t, kPixels> planes;
    for (; !out.empty(); ++first, out = out.subspan(kPixels)) {
      const CifarFile& from = *std::ranges::find_if(files_, [&](const CifarFile& f) { return first < f.first + f.count; });
      from.file.read((first - from.first) * (labels_ + kPixels) + labels_, planes);
      for (std::size_t p = 0; p < kPlane; ++p)
        for (std::size_t c = 0; c < kChannels; ++c) out[p * kChannels + c] = planes[c * kPlane + p];
    }
  }

 private:
  std::vector<CifarFile> files_;
  std::size_t labels_;  // bytes before the pixels
};

// Opens files of records with one label (10 classes) or two, and reads and checks the labels.
DataSplit open_files(const fs::path& folder, const std::vector<std::string>& names, int classes, bool complete) {
  const std::size_t labels = classes == 100 ? 2 : 1, record = labels + kPixels;
  DataSplit split;
  std::vector<CifarFile> files;
  for (const std::string& name : names) {
    PiecewiseFile file(folder / name);
    const std::size_t before = split.count(), count = file.bytes() / record;
    if (count == 0 || file.bytes() % record != 0)
      throw UserError(fmt::format("{} has {} bytes, which is no whole number of records of {}",
                                  quote(file.path().string(), 400), file.bytes(), record));
    const std::size_t published = name == "train.bin" ? 50000 : 10000;
    if (complete && count != published)
      throw UserError(fmt::format("{} has {} records, CIFAR-{} has {} there; for a part of the data say cifar{}-subset:DIR",
                                  quote(file.path().string(), 400), count, classes, published, classes));
    split.labels.resize(before + count);
    for (std::size_t r = 0; r < count; ++r) {
      std::array<std::uint8_t, 2> read{};
      file.read(r * record, std::span(read).first(labels));
      if (labels == 2) check_label(file.path(), r, "coarse label", read[0], kCoarseClasses);
      check_label(file.path(), r, "label", read[labels - 1], classes);
      split.labels[before + r] = read[labels - 1];
    }
    files.push_back({std::move(file), before, count});
  }
  split.in_files = std::make_shared<CifarSource>(std::move(files), labels);
  return split;
}

}  // namespace

Dataset read_cifar(std::string_view spec, const fs::path& given, int classes, bool complete) {
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
  data.train = open_files(folder, training, classes, complete);
  data.test = open_files(folder, {last}, classes, complete);
  return data;
}

}  // namespace gradflow
