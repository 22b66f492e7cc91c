#include "gradflow/engine/file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <system_error>
#include <utility>

#include "gradflow/engine/text.h"
#include "gradflow/kernels/error.h"

namespace gradflow {
namespace {

namespace fs = std::filesystem;

fs::path folder_of(const fs::path& path) {
  const fs::path parent = path.parent_path();
  return parent.empty() ? fs::path(".") : parent;
}

template <class Call>
auto retry_if_interrupted(Call call) {
  auto result = call();
  while (result < 0 && errno == EINTR) result = call();
  return result;
}

int open_retrying(const fs::path& path, int flags, mode_t mode = 0) {
  return retry_if_interrupted([&] { return ::open(path.c_str(), flags | O_CLOEXEC, mode); });
}

[[noreturn]] void fail_write(const fs::path& path, std::string_view reason) {
  throw UserError(fmt::format("cannot write {}: {}", quote(path.string(), 400), reason));
}

[[noreturn]] void fail_read(const fs::path& path, std::string_view reason) {
  throw UserError(fmt::format("cannot read {}: {}", quote(path.string(), 400), reason));
}

// Opens and locks `partial`. Between open and lock its previous owner may have renamed it into place;
// then the descriptor is not the file of that name any more, and must not be touched.
int open_locked(const fs::path& path, const fs::path& partial) {
  for (;;) {
    const int fd = open_retrying(partial, O_WRONLY | O_CREAT | O_NOFOLLOW, 0666);
    if (fd < 0) return -1;
    if (retry_if_interrupted([&] { return ::flock(fd, LOCK_EX | LOCK_NB); }) != 0 && errno == EWOULDBLOCK) {
      ::close(fd);
      fail_write(path, "another process is writing it");
    }  // a file system without locks: go on without
    struct stat opened {
    }, named{};
    if (::fstat(fd, &opened) == 0 && ::lstat(partial.c_str(), &named) == 0 && opened.st_ino == named.st_ino &&
        opened.st_dev == named.st_dev) {
      if (::ftruncate(fd, 0) == 0) return fd;
      const int error = errno;
      ::close(fd);
      errno = error;
      return -1;
    }
    ::close(fd);
  }
}

// Makes the rename itself durable. File systems that cannot sync a folder say EINVAL; that is no fault.
int sync_folder(const fs::path& folder) {
  const int fd = open_retrying(folder, O_RDONLY | O_DIRECTORY);
  if (fd < 0) return errno == EACCES ? 0 : errno;  // a folder one may write to but not list
  const int error = retry_if_interrupted([&] { return ::fsync(fd); }) == 0 ? 0 : errno;
  ::close(fd);
  return error == EINVAL || error == EROFS ? 0 : error;
}

}  // namespace

std::string system_message(int error) { return std::generic_category().message(error); }

AtomicFile::AtomicFile(const fs::path& path) : path_(path), target_(path) {
  if (path.empty() || !path.has_filename()) fail_write(path, "the path names no file");
  struct stat there {};
  if (::stat(path.c_str(), &there) == 0) {
    if (S_ISDIR(there.st_mode)) fail_write(path, "it is a folder");
    if (!S_ISREG(there.st_mode)) {
      descriptor_ = open_retrying(path, O_WRONLY);
      if (descriptor_ < 0) fail_write(path, system_message(errno));
      return;
    }
    std::error_code error;
    target_ = fs::canonical(path, error);
    if (error) fail_write(path, error.message());
  }
  partial_ = folder_of(target_) / ("." + target_.filename().string() + ".partial");
  descriptor_ = open_locked(path_, partial_);
  if (descriptor_ < 0) {
    const int error = errno;
    partial_.clear();
    fail_write(path, system_message(error));
  }
}

AtomicFile::~AtomicFile() { abandon(); }

void AtomicFile::abandon() noexcept {
  if (descriptor_ < 0) return;
  // Removed while the lock is still held, so it can be nobody else's.
  if (!partial_.empty()) ::unlink(partial_.c_str());
  ::close(descriptor_);
  descriptor_ = -1;
}

void AtomicFile::fail(int error) {
  abandon();
  fail_write(path_, system_message(error));
}

void AtomicFile::write(const void* data, std::size_t bytes) {
  if (descriptor_ < 0) throw InternalError("AtomicFile: write after commit or failure");
  const char* next = static_cast<const char*>(data);
  while (bytes > 0) {
    const std::size_t chunk = std::min<std::size_t>(bytes, std::size_t{1} << 30);
    const ssize_t written = retry_if_interrupted([&] { return ::write(descriptor_, next, chunk); });
    if (written < 0) fail(errno);
    next += written;
    bytes -= static_cast<std::size_t>(written);
    bytes_written_ += static_cast<std::uint64_t>(written);
  }
}

void AtomicFile::commit() {
  if (descriptor_ < 0) throw InternalError("AtomicFile: commit after commit or failure");
  const bool direct = partial_.empty();
  const int synced = retry_if_interrupted([&] { return ::fsync(descriptor_); });
  if (synced != 0 && !(direct && (errno == EINVAL || errno == EROFS))) fail(errno);  // a pipe has no disk
  if (!direct) {
    // The mode of the file that is replaced stays.
    struct stat there {};
    if (::stat(target_.c_str(), &there) == 0) (void)::fchmod(descriptor_, there.st_mode & 07777);
    if (::rename(partial_.c_str(), target_.c_str()) != 0) fail(errno);
  }
  // From here on the name is no longer the partial's: nothing may remove it.
  const int fd = std::exchange(descriptor_, -1);
  // Network file systems report a full disk only here.
  if (::close(fd) != 0 && errno != EINTR) fail_write(path_, system_message(errno));
  if (direct) return;
  if (const int error = sync_folder(folder_of(target_)); error != 0) fail_write(path_, system_message(error));
}

void write_file_atomically(const fs::path& path, std::string_view content) {
  AtomicFile file(path);
  file.write(content);
  file.commit();
}

void write_file_atomically(const fs::path& path, const std::function<void(AtomicFile&)>& writer) {
  AtomicFile file(path);
  writer(file);
  file.commit();
}

std::string read_file(const fs::path& path, std::uint64_t max_bytes) {
  const int fd = open_retrying(path, O_RDONLY);
  if (fd < 0) fail_read(path, system_message(errno));
  struct Closer {
    int fd;
    ~Closer() { ::close(fd); }
  } closer{fd};
  struct stat info {};
  if (::fstat(fd, &info) != 0) fail_read(path, system_message(errno));
  if (S_ISDIR(info.st_mode)) fail_read(path, "it is a folder");
  if (S_ISCHR(info.st_mode) || S_ISBLK(info.st_mode)) fail_read(path, "it is a device");  // some never end
  const auto too_long = [&] { fail_read(path, fmt::format("it is longer than {} bytes", max_bytes)); };
  if (S_ISREG(info.st_mode) && static_cast<std::uint64_t>(info.st_size) > max_bytes) too_long();

  // The size is only a hint: /proc and pipes say 0, and a file may grow while it is read.
  std::string content;
  std::size_t filled = 0;
  content.resize(static_cast<std::size_t>(std::max<off_t>(info.st_size, 0)) + 1);
  for (;;) {
    if (filled == content.size()) content.resize(std::max<std::size_t>(4096, content.size() * 2));
    const ssize_t got =
        retry_if_interrupted([&] { return ::read(fd, content.data() + filled, content.size() - filled); });
    if (got < 0) fail_read(path, system_message(errno));
    if (got == 0) break;
    filled += static_cast<std::size_t>(got);
    if (filled > max_bytes) too_long();
  }
  content.resize(filled);
  return content;
}

PiecewiseFile::PiecewiseFile(const fs::path& path) : path_(path) {
  // A pipe would wait here for a writer; what is opened without waiting and is no regular file is refused below.
  descriptor_ = open_retrying(path, O_RDONLY | O_NONBLOCK);
  if (descriptor_ < 0) fail_read(path, system_message(errno));
  struct stat info {};
  std::string fault;
  if (::fstat(descriptor_, &info) != 0)
    fault = system_message(errno);
  else if (!S_ISREG(info.st_mode))
    fault = S_ISDIR(info.st_mode) ? "it is a folder" : "it is no regular file";
  if (!fault.empty()) {
    ::close(descriptor_);
    fail_read(path, fault);
  }
  bytes_ = static_cast<std::uint64_t>(info.st_size);
}

PiecewiseFile::PiecewiseFile(PiecewiseFile&& other) noexcept
    : path_(std::move(other.path_)), descriptor_(std::exchange(other.descriptor_, -1)), bytes_(other.bytes_) {}

PiecewiseFile::~PiecewiseFile() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

void PiecewiseFile::read(std::uint64_t offset, std::span<std::uint8_t> out) const {
  while (!out.empty()) {
    const std::size_t chunk = std::min<std::size_t>(out.size(), std::size_t{1} << 30);
    const ssize_t got = retry_if_interrupted(
        [&] { return ::pread(descriptor_, out.data(), chunk, static_cast<off_t>(offset)); });
    if (got < 0) fail_read(path_, system_message(errno));
    if (got == 0)
      fail_read(path_, fmt::format("it ends at byte {} or before, but had {} bytes when it was opened: it has become "
                                   "shorter since", offset, bytes_));
    out = out.subspan(static_cast<std::size_t>(got));
    offset += static_cast<std::uint64_t>(got);
  }
}

void ensure_output_directory(const fs::path& path) {
  const auto fail = [&](std::string_view reason) {
    throw UserError(fmt::format("cannot use {} as output folder: {}", quote(path.string(), 400), reason));
  };
  if (path.empty()) fail("the path is empty");
  std::error_code error;
  const fs::file_status status = fs::status(path, error);
  if (fs::exists(status) && !fs::is_directory(status)) fail("it is a file");
  error.clear();
  fs::create_directories(path, error);
  if (error) fail(error.message());
  // Permission bits do not tell everything (read-only mounts, quotas, root): so try.
  std::string probe = (path / ".gradflow-XXXXXX").string();
  const int fd = ::mkstemp(probe.data());
  if (fd < 0) fail(system_message(errno));
  ::unlink(probe.c_str());
  ::close(fd);
}

}  // namespace gradflow
