// Files that are either wholly there or not there at all, and files read whole or at any place.
//
//   write_file_atomically("out/report.json", text);
//
//   AtomicFile file("out/step100.safetensors");   // writes out/.step100.safetensors.partial
//   file.write(header);
//   file.write(data);
//   file.commit();                                // sync, rename, sync the folder
//
// A reader of the path sees the old content or the new one, also after `kill -9` or power loss. What
// fails (unwritable folder, full disk, quota, ...) throws UserError naming the path and the system's
// reason; the file that was there before stays, and the partial one is removed.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <span>
#include <string>
#include <string_view>

namespace gradflow {

class AtomicFile {
 public:
  // Opens the partial file beside `path`. A symbolic link to a file is followed and stays. A path
  // that is no regular file but can be written (/dev/stdout, a pipe) is written to directly. Two
  // processes at once on one path: the second throws UserError.
  explicit AtomicFile(const std::filesystem::path& path);
  ~AtomicFile();  // without commit(): removes the partial file
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;

  void write(const void* data, std::size_t bytes);
  void write(std::string_view text) { write(text.data(), text.size()); }

  // After it the content is on the disk under `path`. Call once; nothing may be written afterwards.
  void commit();

  std::uint64_t bytes_written() const { return bytes_written_; }

 private:
  [[noreturn]] void fail(int error);
  void abandon() noexcept;

  std::filesystem::path path_;     // as the caller gave it, for messages
  std::filesystem::path target_;   // links resolved
  std::filesystem::path partial_;  // empty: written to directly
  int descriptor_ = -1;
  std::uint64_t bytes_written_ = 0;
};

void write_file_atomically(const std::filesystem::path& path, std::string_view content);
// `writer` is called once; what it throws passes through, and then nothing is written.
void write_file_atomically(const std::filesystem::path& path, const std::function<void(AtomicFile&)>& writer);

// The whole file. UserError if it is missing, a folder, unreadable, or longer than `max_bytes`.
std::string read_file(const std::filesystem::path& path, std::uint64_t max_bytes = std::uint64_t{1} << 36);

// A regular file that is read piece by piece, by any number of threads at once.
class PiecewiseFile {
 public:
  // UserError if it is missing, unreadable, or no regular file.
  explicit PiecewiseFile(const std::filesystem::path& path);
  ~PiecewiseFile();
  PiecewiseFile(PiecewiseFile&& other) noexcept;
  PiecewiseFile& operator=(PiecewiseFile&&) = delete;

  const std::filesystem::path& path() const { return path_; }
  std::uint64_t bytes() const { return bytes_; }  // when it was opened

  // Fills `out` with the bytes from `offset` on. UserError if it cannot, or if the file ends before: it has become
  // shorter.
  void read(std::uint64_t offset, std::span<std::uint8_t> out) const;

 private:
  std::filesystem::path path_;
  int descriptor_ = -1;
  std::uint64_t bytes_ = 0;
};

// Creates the folder, with its parents, and tries that a file can be created in it; UserError if the
// path (or a part of it) is a file or nothing can be written there. Leaves nothing behind in it.
void ensure_output_directory(const std::filesystem::path& path);

// "No space left on device" for ENOSPC, and so on.
std::string system_message(int error);

}  // namespace gradflow
