#include "idx_source.h"

#include <fmt/format.h>
#include <sys/stat.h>
#include <zlib.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <limits>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include "gradflow/engine/file.h"
#include "gradflow/engine/text.h"
#include "gradflow/kernels/error.h"

namespace gradflow {
namespace {

namespace fs = std::filesystem;

constexpr std::uint32_t kImagesMagic = 0x803;  // unsigned bytes, three dimensions
constexpr std::uint32_t kLabelsMagic = 0x801;  // unsigned bytes, one dimension
constexpr std::uint64_t kMaxHeld = std::uint64_t{1} << 36;  // bytes of pixels in memory
constexpr std::uint64_t kMaxStored = std::uint64_t{1} << 62;  // and in a file
constexpr std::size_t kImagesHeader = 16;

// Reads a plain or a compressed file alike; says what is wrong with it.
class IdxFile {
 public:
  explicit IdxFile(const fs::path& path) : path_(path) {
    struct stat info {};
    if (::stat(path.c_str(), &info) != 0) fail(system_message(errno));
    if (S_ISDIR(info.st_mode)) fail("it is a folder");
    regular_ = S_ISREG(info.st_mode);
    errno = 0;
    file_.reset(::gzopen(path.c_str(), "rb"));
    if (!file_) fail(errno != 0 ? system_message(errno) : "out of memory");
    ::gzbuffer(file_.get(), 1 << 17);
  }

  [[noreturn]] void fail(std::string_view reason) const {
    throw UserError(fmt::format("cannot read IDX file {}: {}", quote(path_.string(), 400), reason));
  }

  bool regular() const { return regular_; }
  bool compressed() const { return ::gzdirect(file_.get()) == 0; }  // can be told once something has been read

  // Fills `out`, or less where the file ends; returns how many bytes there were.
  std::size_t read(std::span<std::uint8_t> out) {
    std::size_t done = 0;
    while (done < out.size()) {
      const auto chunk = static_cast<unsigned>(std::min<std::size_t>(out.size() - done, 1 << 20));
      errno = 0;
      const int got = ::gzread(file_.get(), out.data() + done, chunk);
      int error = Z_OK;
      const char* message = ::gzerror(file_.get(), &error);
      if (error == Z_ERRNO) fail(system_message(errno));
      if (error == Z_BUF_ERROR) fail("truncated: the compressed data ends too early");
      if (error != Z_OK && error != Z_STREAM_END)
        fail(fmt::format("damaged compression: {}", detail(message)));
      if (got <= 0) break;
      done += static_cast<std::size_t>(got);
    }
    return done;
  }

  // Magic number and sizes.
  template <std::size_t kDimensions>
  std::array<std::size_t, kDimensions> header(std::uint32_t magic, std::string_view kind) {
    std::array<std::uint8_t, 4 + 4 * kDimensions> bytes{};
    const std::size_t got = read(bytes);
    const auto word = [&](std::size_t i) {
      return std::uint32_t{bytes[i]} << 24 | std::uint32_t{bytes[i + 1]} << 16 |
             std::uint32_t{bytes[i + 2]} << 8 | bytes[i + 3];
    };
    if (got >= 4 && word(0) != magic)
      fail(fmt::format("wrong magic number 0x{:08x}, a file of {} begins with 0x{:08x}", word(0), kind,
                       magic));
    if (got < bytes.size())
      fail(fmt::format("truncated: the header takes {} bytes, the file has {}", bytes.size(), got));
    std::array<std::size_t, kDimensions> sizes{};
    for (std::size_t i = 0; i < kDimensions; ++i) sizes[i] = word(4 + 4 * i);
    return sizes;
  }

  // The `expected` data bytes behind the header, and nothing behind them.
  std::vector<std::uint8_t> body(std::uint64_t expected) {
    std::vector<std::uint8_t> data;
    while (data.size() < expected) {
      const std::size_t before = data.size();
      const std::uint64_t step = std::max<std::uint64_t>(1 << 20, before);  // at most doubles
      data.resize(static_cast<std::size_t>(std::min(expected, before + step)));
      const std::size_t got = read(std::span(data).subspan(before));
      if (before + got < data.size())
        fail_size(expected, before + got);
    }
    std::uint8_t extra = 0;
    if (read({&extra, 1}) != 0) fail_size(expected, expected + 1);
    return data;
  }

  // There are at least `found` data bytes.
  [[noreturn]] void fail_size(std::uint64_t expected, std::uint64_t found) const {
    if (found > expected) fail(fmt::format("trailing bytes after the {} data bytes", expected));
    fail(fmt::format("truncated: the header promises {} data bytes, there are {}", expected, found));
  }

 private:
  struct Close {
    void operator()(gzFile file) const { ::gzclose_r(file); }
  };

  // zlib puts the path before its message; ours already names it.
  std::string_view detail(const char* message) const {
    std::string_view text = message == nullptr ? "unknown" : message;
    const std::string prefix = path_.string() + ": ";
    if (text.starts_with(prefix)) text.remove_prefix(prefix.size());
    return text;
  }

  fs::path path_;
  std::unique_ptr<gzFile_s, Close> file_;
  bool regular_ = false;
};

// count, height and width; their product is below `limit`.
std::array<std::size_t, 3> images_header(IdxFile& file, std::uint64_t limit) {
  const auto [count, height, width] = file.header<3>(kImagesMagic, "images");
  // Each size is below 2^32, so the product of two cannot overflow 64 bits.
  const std::uint64_t image = std::uint64_t{height} * width;
  if (image != 0 && count > limit / image)
    file.fail(fmt::format("absurd sizes {} x {} x {}: more than {} GiB", count, height, width, limit >> 30));
  if (count == 0 || image == 0) file.fail(fmt::format("no images in it ({} x {} x {})", count, height, width));
  return {count, height, width};
}

class IdxSource final : public ImageSource {
 public:
  IdxSource(const ImageShape& shape, std::size_t count, PiecewiseFile file)
      : ImageSource(shape, count), file_(std::move(file)) {}
  void read(std::size_t first, std::span<std::uint8_t> out) const override {
    file_.read(kImagesHeader + std::uint64_t{first} * shape().features(), out);
  }

 private:
  PiecewiseFile file_;
};

}  // namespace

IdxImages read_idx_images(const fs::path& path) {
  IdxFile file(path);
  const auto [count, height, width] = images_header(file, kMaxHeld);
  return {count, height, width, file.body(std::uint64_t{count} * height * width)};
}

std::shared_ptr<const ImageSource> open_idx_images(const fs::path& path) {
  IdxFile file(path);
  if (!file.regular()) return nullptr;  // what is read from a pipe is gone
  const auto [count, height, width] = images_header(file, kMaxStored);
  if (file.compressed()) return nullptr;
  PiecewiseFile stored(path);
  const std::uint64_t expected = std::uint64_t{count} * height * width, found = stored.bytes() - kImagesHeader;
  if (found != expected) file.fail_size(expected, found);
  return std::make_shared<IdxSource>(ImageShape{height, width, 1}, count, std::move(stored));
}

std::vector<std::uint16_t> read_idx_labels(const fs::path& path) {
  IdxFile file(path);
  const auto [count] = file.header<1>(kLabelsMagic, "labels");
  if (count == 0) file.fail("no labels in it");
  const std::vector<std::uint8_t> bytes = file.body(count);
  return {bytes.begin(), bytes.end()};
}

}  // namespace gradflow
