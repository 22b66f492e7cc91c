#include "gradflow/engine/dataset.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <limits>

#include "dataset_cifar.h"
#include "dataset_synthetic.h"
#include "idx_source.h"
#include "image_source.h"
#include "gradflow/engine/random.h"
#include "gradflow/engine/spec_text.h"
#include "gradflow/engine/text.h"
#include "gradflow/kernels/error.h"

namespace gradflow {
namespace {

namespace fs = std::filesystem;

constexpr const char* kFashionFolder = "/usr/share/datasets/fashion-mnist";
constexpr const char* kFashionVariable = "GRADFLOW_FASHION_MNIST";

// "train", "images-idx3-ubyte" -> the first of train-images-idx3-ubyte, train-images.idx3-ubyte, and
// both with .gz, that is there.
fs::path find_idx(const fs::path& folder, const std::string& split, const std::string& kind) {
  std::string dotted = kind;
  dotted[dotted.find('-')] = '.';
  const std::string first = split + "-" + kind;
  for (const std::string& name : {first, first + ".gz", split + "-" + dotted, split + "-" + dotted + ".gz"}) {
    std::error_code ignored;
    if (fs::exists(folder / name, ignored)) return folder / name;
  }
  throw UserError(fmt::format("no {} or {}.gz in the folder {}", first, first, quote(folder.string(), 400)));
}

DataSplit read_split(const fs::path& folder, const std::string& prefix, ImageShape& shape) {
  const fs::path images_path = find_idx(folder, prefix, "images-idx3-ubyte");
  const fs::path labels_path = find_idx(folder, prefix, "labels-idx1-ubyte");
  DataSplit split;
  std::size_t count = 0;
  if (const auto source = open_idx_images(images_path)) {
    shape = source->shape(), count = source->count();
    split.in_files = source;
  } else {
    IdxImages images = read_idx_images(images_path);
    shape = {images.height, images.width, 1}, count = images.count;
    split.images = std::move(images.pixels);
  }
  split.labels = read_idx_labels(labels_path);
  if (count != split.count())
    throw UserError(fmt::format("{} holds {} images, but {} holds {} labels", quote(images_path.string(), 400), count,
                                labels_path.filename().string(), split.count()));
  return split;
}

// classes 0: as many as the largest label says.
Dataset read_folder(std::string_view spec, const fs::path& folder, int classes) {
  std::error_code ignored;
  if (!fs::is_directory(folder, ignored))
    throw UserError(
        fmt::format("data {}: there is no folder {}", quote(spec), quote(folder.string(), 400)));
  Dataset data;
  data.name = spec;
  ImageShape test_shape;
  data.train = read_split(folder, "train", data.shape);
  data.test = read_split(folder, "t10k", test_shape);
  if (data.shape != test_shape)
    throw UserError(fmt::format("data {}: training images are {} x {}, held-out images {} x {}", quote(spec),
                                data.shape.height, data.shape.width, test_shape.height, test_shape.width));
  const auto largest = [](const DataSplit& split) {
    return *std::max_element(split.labels.begin(), split.labels.end());
  };
  const int highest = std::max(largest(data.train), largest(data.test));
  data.classes = classes != 0 ? classes : highest + 1;
  if (highest >= data.classes)
    throw UserError(fmt::format("data {}: there is a label {}, but only the {} classes 0 to {}", quote(spec),
                                highest, data.classes, data.classes - 1));
  if (data.classes < 2)
    throw UserError(fmt::format("data {}: all labels are 0, nothing can be learned", quote(spec)));
  return data;
}

Dataset read_fashion_mnist(std::string_view spec) {
  const char* variable = std::getenv(kFashionVariable);
  const bool overridden = variable != nullptr && *variable != '\0';
  const fs::path folder = overridden ? variable : kFashionFolder;
  std::error_code ignored;
  if (!fs::is_directory(folder, ignored)) {
    throw UserError(overridden
                        ? fmt::format("data 'fashion-mnist': {} names the folder {}, which is not there",
                                      kFashionVariable, quote(folder.string(), 400))
                        : fmt::format("data 'fashion-mnist': there is no folder {}; install Debian's "
                                      "package dataset-fashion-mnist, or name a folder in {}",
                                      quote(folder.string()), kFashionVariable));
  }
  return read_folder(spec, folder, 10);
}

// What lies in files, which have been checked; images stay there where that is possible.
Dataset read_files(std::string_view spec) {
  const auto [name, rest, has_rest] = split_name(spec);
  if (name == "fashion-mnist") {
    SpecReader(spec, "data").finish();  // it takes no keys
    return read_fashion_mnist(spec);
  }
  if (name == "mnist" || name == "idx") {
    if (rest.empty())
      throw UserError(
          fmt::format("data {}: expected {}:DIR, the folder of the IDX files", quote(spec), name));
    return read_folder(spec, fs::path(rest), name == "mnist" ? 10 : 0);
  }
  if (name == "cifar10" || name == "cifar100" || name == "cifar10-subset" || name == "cifar100-subset") {
    if (rest.empty())
      throw UserError(fmt::format("data {}: expected {}:DIR, the folder of its binary files", quote(spec), name));
    return read_cifar(spec, fs::path(rest), name.starts_with("cifar100") ? 100 : 10, !name.ends_with("-subset"));
  }
  throw_unknown_name("data", spec, name, {"fashion-mnist", "mnist", "idx", "cifar10", "cifar100", "cifar10-subset", "cifar100-subset", "synthetic", "half"});
}

enum class Images { held, in_files, unmade };

Dataset read_dataset(std::string_view spec, Images images) {
  constexpr std::string_view kHalf = "half:";
  if (spec.starts_with(kHalf)) {
    std::string_view halved = spec;
    std::size_t times = 0;
    for (; halved.starts_with(kHalf); ++times) halved.remove_prefix(kHalf.size());
    if (halved.empty()) throw UserError(fmt::format("data {}: expected half:SPEC, as in half:fashion-mnist", quote(spec)));
    Dataset data = read_dataset(halved, images);
    while (times-- > 0) data = halved_images(std::move(data));
    return data;
  }
  if (split_name(spec).name == "synthetic") {
    SpecReader reader(spec, "data");
    return make_synthetic(reader, images != Images::unmade);
  }
  Dataset data = read_files(spec);
  for (DataSplit* split : {&data.train, &data.test}) {
    if (split->count() > static_cast<std::size_t>(std::numeric_limits<std::int32_t>::max()))
      throw UserError(fmt::format("data {}: {} images are more than can be indexed", quote(spec), split->count()));
    if (images == Images::held) hold_images(*split);
  }
  normalize_inputs(data);
  return data;
}

}  // namespace

Dataset load_dataset(std::string_view spec) { return read_dataset(spec, Images::held); }
Dataset open_dataset(std::string_view spec) { return read_dataset(spec, Images::in_files); }
Dataset outline_dataset(std::string_view spec) { return read_dataset(spec, Images::unmade); }

void normalize_inputs(Dataset& data) {
  // How often each level occurs: counts are exact, so the sums do not depend on any order.
  std::array<std::uint64_t, 256> histogram{};
  std::vector<std::uint64_t> sums(data.shape.features());
  visit_images(data.train, [&](std::span<const std::uint8_t> pixels) {
    for (const std::uint8_t pixel : pixels) ++histogram[pixel];
    for (std::size_t image = 0; image < pixels.size(); image += sums.size())
      for (std::size_t f = 0; f < sums.size(); ++f) sums[f] += pixels[image + f];
  });
  const auto total = static_cast<double>(data.train.image_bytes());
  double sum = 0;
  for (std::size_t level = 0; level < 256; ++level)
    sum += static_cast<double>(histogram[level]) * (static_cast<double>(level) / 255);
  data.mean = sum / total;
  double squares = 0;
  for (std::size_t level = 0; level < 256; ++level) {
    const double distance = static_cast<double>(level) / 255 - data.mean;
    squares += static_cast<double>(histogram[level]) * distance * distance;
  }
  const auto different = std::count_if(histogram.begin(), histogram.end(), [](auto c) { return c != 0; });
  if (different < 2)
    throw UserError(fmt::format("data {}: all pixels of the training images are equal", quote(data.name)));
  data.inv_std = 1 / std::sqrt(squares / total);
  data.mean_image.resize(sums.size());
  const double levels = 255.0 * static_cast<double>(data.train.count());
  for (std::size_t f = 0; f < sums.size(); ++f)
    data.mean_image[f] = static_cast<float>(static_cast<double>(sums[f]) / levels);
}

BatchOrder::BatchOrder(std::size_t count, std::size_t batch, std::uint64_t seed)
    : count_(count), batch_(batch), seed_(seed) {
  if (batch == 0) throw UserError("the batch must hold at least 1 example, not 0");
  if (batch > count)
    throw UserError(
        fmt::format("a batch of {} examples is larger than the data set, which has {}", batch, count));
  if (count > static_cast<std::size_t>(std::numeric_limits<std::int32_t>::max()))
    throw UserError(fmt::format("a data set of {} examples is too large to be indexed", count));
}

std::span<const std::int32_t> BatchOrder::batch(std::uint64_t step) & {
  const std::uint64_t epoch = epoch_of(step);
  if (order_.empty() || epoch != epoch_) {
    order_ = permutation(static_cast<std::int32_t>(count_), seed_, epoch);
    epoch_ = epoch;
  }
  return std::span(order_).subspan(step % steps_per_epoch() * batch_, batch_);
}

}  // namespace gradflow
