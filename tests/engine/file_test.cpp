#include "gradflow/engine/file.h"

#include <gtest/gtest.h>
#include <linux/capability.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <stdexcept>

#include "engine/temp_dir.h"

namespace gradflow {
namespace {

using test::has;
using test::TempDir;
using test::user_error;
namespace fs = std::filesystem;

TEST(File, WritesAndReplacesAndLeavesNothingElse) {
  TempDir dir;
  write_file_atomically(dir / "a.txt", "first");
  EXPECT_EQ(read_file(dir / "a.txt"), "first");
  write_file_atomically(dir / "a.txt", std::string(1 << 20, 'x'));
  EXPECT_EQ(read_file(dir / "a.txt"), std::string(1 << 20, 'x'));
  write_file_atomically(dir / "empty", "");
  EXPECT_EQ(read_file(dir / "empty"), "");
  EXPECT_EQ(dir.entries(), 2u);
}

TEST(File, NothingChangesUntilCommit) {
  TempDir dir;
  const fs::path path = dir / "a.txt";
  write_file_atomically(path, "old");
  {
    AtomicFile file(path);
    file.write("half of the n");
    EXPECT_EQ(read_file(path), "old");
  }
  EXPECT_EQ(read_file(path), "old");
  EXPECT_EQ(dir.entries(), 1u);
  const auto thrower = [](AtomicFile& file) {
    file.write("x");
    throw std::runtime_error("while writing");
  };
  EXPECT_THROW(write_file_atomically(path, thrower), std::runtime_error);
  EXPECT_EQ(read_file(path), "old");
  EXPECT_EQ(dir.entries(), 1u);
}

TEST(File, APartialFileLeftByAKilledRunIsTakenOver) {
  TempDir dir;
  write_file_atomically(dir / ".a.txt.partial", "a long remnant of an earlier run");
  write_file_atomically(dir / "a.txt", "new");
  EXPECT_EQ(read_file(dir / "a.txt"), "new");
  EXPECT_EQ(dir.entries(), 1u);
}

TEST(File, TwoWritersOfOnePathAreRefused) {
  TempDir dir;
  AtomicFile first(dir / "a.txt");
  EXPECT_TRUE(has(user_error([&] { AtomicFile second(dir / "a.txt"); }), "another process"));
  first.write("kept");
  first.commit();
  EXPECT_EQ(read_file(dir / "a.txt"), "kept");
  write_file_atomically(dir / "a.txt", "and again");
  EXPECT_EQ(read_file(dir / "a.txt"), "and again");
}

TEST(File, ALinkStaysALinkAndTheModeStays) {
  TempDir dir;
  write_file_atomically(dir / "real.txt", "old");
  ASSERT_EQ(::chmod((dir / "real.txt").c_str(), 0640), 0);
  fs::create_symlink("real.txt", dir / "link.txt");
  write_file_atomically(dir / "link.txt", "new");
  EXPECT_TRUE(fs::is_symlink(dir / "link.txt"));
  EXPECT_EQ(read_file(dir / "real.txt"), "new");
  EXPECT_EQ(static_cast<int>(fs::status(dir / "real.txt").permissions()), 0640);
}

TEST(File, ErrorsNameThePathAndTheReason) {
  TempDir dir;
  write_file_atomically(dir / "file", "x");
  const auto write_to = [](const fs::path& path) {
    return user_error([&] { write_file_atomically(path, "x"); });
  };
  std::string text = write_to(dir / "missing/a.txt");
  EXPECT_TRUE(has(text, "missing/a.txt"));
  EXPECT_TRUE(has(text, system_message(ENOENT)));
  EXPECT_TRUE(has(write_to(dir / "file/a.txt"), system_message(ENOTDIR)));
  EXPECT_TRUE(has(write_to(dir.path()), "it is a folder"));
  EXPECT_TRUE(has(write_to(""), "names no file"));
  EXPECT_TRUE(has(write_to(dir / "a" / ""), "names no file"));
  EXPECT_TRUE(has(write_to(dir / std::string(300, 'n')), system_message(ENAMETOOLONG)));
  EXPECT_EQ(dir.entries(), 1u);

  EXPECT_TRUE(has(user_error([&] { read_file(dir / "none"); }), system_message(ENOENT)));
  EXPECT_TRUE(has(user_error([&] { read_file(dir.path()); }), "it is a folder"));
  write_file_atomically(dir / "ten", "0123456789");
  EXPECT_EQ(read_file(dir / "ten", 10).size(), 10u);
  EXPECT_TRUE(has(user_error([&] { read_file(dir / "ten", 9); }), "longer than 9 bytes"));
  EXPECT_GT(read_file("/proc/self/status").size(), 100u);  // its size says 0
}

TEST(File, AFullDeviceIsAnError) {
  ASSERT_EQ(::access("/dev/full", W_OK), 0) << "every Linux has it, containers too";
  EXPECT_TRUE(has(user_error([] { write_file_atomically("/dev/full", "x"); }), system_message(ENOSPC)));
  write_file_atomically("/dev/null", "x");
  EXPECT_TRUE(fs::is_character_file("/dev/null"));
}

// In a process of its own, because a file size limit cannot be raised again. Like a full disk, the
// limit lets the first part of a file through and fails in its middle.
TEST(File, AWriteThatFailsHalfwayKeepsTheOldFile) {
  TempDir dir;
  const fs::path path = dir / "a.txt";
  write_file_atomically(path, "old");
  const pid_t child = ::fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    ::signal(SIGXFSZ, SIG_IGN);
    const rlimit limit{.rlim_cur = 100'000, .rlim_max = 100'000};
    if (::setrlimit(RLIMIT_FSIZE, &limit) != 0) ::_exit(3);
    try {
      write_file_atomically(path, std::string(1'000'000, 'x'));
      ::_exit(4);
    } catch (const UserError& error) {
      const std::string text = error.what();
      ::_exit(has(text, "a.txt") && has(text, system_message(EFBIG)) ? 0 : 5);
    }
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  ASSERT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), 0);
  EXPECT_EQ(read_file(path), "old");
  EXPECT_EQ(dir.entries(), 1u);
}

// Root may write everywhere by virtue of one capability; while this lives, this thread does without.
class WithoutOverride {
 public:
  WithoutOverride() {
    EXPECT_EQ(::syscall(SYS_capget, &header_, kept_), 0);
    __user_cap_data_struct fewer[2] = {kept_[0], kept_[1]};
    fewer[0].effective &= ~(1u << CAP_DAC_OVERRIDE);
    EXPECT_EQ(::syscall(SYS_capset, &header_, fewer), 0);
  }
  ~WithoutOverride() { EXPECT_EQ(::syscall(SYS_capset, &header_, kept_), 0); }
  WithoutOverride(const WithoutOverride&) = delete;
  WithoutOverride& operator=(const WithoutOverride&) = delete;

 private:
  __user_cap_header_struct header_{.version = _LINUX_CAPABILITY_VERSION_3, .pid = 0};
  __user_cap_data_struct kept_[2] = {};
};

TEST(File, AFolderWithoutPermissionIsAnError) {
  TempDir dir;
  const WithoutOverride as_anybody;
  fs::create_directory(dir / "closed");
  ASSERT_EQ(::chmod((dir / "closed").c_str(), 0555), 0);
  EXPECT_TRUE(has(user_error([&] { write_file_atomically(dir / "closed/a", "x"); }), system_message(EACCES)));
  EXPECT_TRUE(has(user_error([&] { ensure_output_directory(dir / "closed"); }), system_message(EACCES)));
}

TEST(File, OutputDirectoryIsCreatedOrRefused) {
  TempDir dir;
  ensure_output_directory(dir / "a/b/c");
  EXPECT_TRUE(fs::is_directory(dir / "a/b/c"));
  EXPECT_TRUE(fs::is_empty(dir / "a/b/c"));
  ensure_output_directory(dir / "a/b/c");
  write_file_atomically(dir / "file", "x");
  EXPECT_TRUE(has(user_error([&] { ensure_output_directory(dir / "file"); }), "it is a file"));
  EXPECT_TRUE(has(user_error([&] { ensure_output_directory(dir / "file/under"); }), "file/under"));
  EXPECT_TRUE(has(user_error([&] { ensure_output_directory(""); }), "empty"));
  EXPECT_TRUE(has(user_error([&] { ensure_output_directory("/proc/gradflow"); }), "/proc/gradflow"));
  EXPECT_TRUE(has(user_error([&] { ensure_output_directory("/proc"); }), "/proc"));
}

TEST(PiecewiseFile, ReadsAnyPlaceAndSaysWhatItCannot) {
  TempDir dir;
  const fs::path path = dir / "file";
  write_file_atomically(path, "0123456789");
  PiecewiseFile opened(path);
  const PiecewiseFile file = std::move(opened);
  EXPECT_EQ(file.bytes(), 10u);
  const auto read = [&](std::uint64_t offset, std::size_t count) {
    std::vector<std::uint8_t> out(count);
    file.read(offset, out);
    return std::string(out.begin(), out.end());
  };
  EXPECT_EQ(read(7, 3), "789");
  EXPECT_EQ(read(0, 10), "0123456789");
  EXPECT_EQ(read(10, 0), "");
  fs::resize_file(path, 6);
  EXPECT_EQ(read(4, 2), "45");
  EXPECT_TRUE(has(user_error([&] { read(4, 3); }), "it ends at byte 6 or before, but had 10 bytes when it was opened"));
  EXPECT_TRUE(has(user_error([&] { PiecewiseFile(dir / "none"); }), system_message(ENOENT)));
  EXPECT_TRUE(has(user_error([&] { PiecewiseFile{dir.path()}; }), "it is a folder"));
  ASSERT_EQ(::mkfifo((dir / "pipe").c_str(), 0600), 0);
  EXPECT_TRUE(has(user_error([&] { PiecewiseFile(dir / "pipe"); }), "it is no regular file"));
}

}  // namespace
}  // namespace gradflow
