// What is left of the host's memory, as files of Linux say it.
#include "gradflow/kernels/host_memory.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <limits>

namespace gradflow::kernels {
namespace {

namespace fs = std::filesystem;

class HostMemory : public ::testing::Test {
 protected:
  HostMemory()
      : root_(::testing::TempDir() + "gradflow_host_memory_" +
              ::testing::UnitTest::GetInstance()->current_test_info()->name()) {
    fs::remove_all(root_);
  }
  ~HostMemory() override { fs::remove_all(root_); }
  void write(const std::string& file, const std::string& text) {
    fs::create_directories(fs::path(root_ + file).parent_path());
    std::ofstream(root_ + file) << text;
  }
  std::size_t left() const { return available_host_memory(root_); }

 private:
  std::string root_;
};

TEST_F(HostMemory, IsUnlimitedWhereNothingIsKnown) {
  EXPECT_EQ(left(), std::numeric_limits<std::size_t>::max());
}

TEST_F(HostMemory, IsWhatTheMachineHasWithoutControlGroups) {
  write("/proc/meminfo", "MemTotal: 900 kB\nMemFree: 5 kB\nMemAvailable:     100 kB\nSwapFree:  20 kB\n");
  EXPECT_EQ(left(), 120u * 1024);
  write("/proc/self/cgroup", "0::/user\n");  // without files of a memory controller
  EXPECT_EQ(left(), 120u * 1024);
}

TEST_F(HostMemory, IsLimitedByEveryGroupOfVersion2AboveTheProcess) {
  write("/proc/meminfo", "MemAvailable: 100 kB\n");
  write("/proc/self/cgroup", "0::/job/step\n");
  write("/sys/fs/cgroup/job/step/memory.max", "max\n");
  write("/sys/fs/cgroup/job/step/memory.current", "7000\n");
  EXPECT_EQ(left(), 100u * 1024);
  write("/sys/fs/cgroup/job/memory.max", "10000\n");
  write("/sys/fs/cgroup/job/memory.current", "7000\n");
  EXPECT_EQ(left(), 3000u);
  write("/sys/fs/cgroup/job/memory.stat", "anon 5\nfile 9\ninactive_file 500\nactive_file 1500\n");
  EXPECT_EQ(left(), 5000u);  // caches are given back
  write("/sys/fs/cgroup/job/memory.current", "13000\n");
  EXPECT_EQ(left(), 0u);  // over its limit
}

TEST_F(HostMemory, IsLimitedByAContainerOfVersion1) {
  write("/proc/meminfo", "MemAvailable: 100 kB\n");
  write("/proc/self/cgroup", "3:cpuset,memory:/docker/abc\n1:cpu:/\n0::/\n");
  write("/sys/fs/cgroup/memory/memory.limit_in_bytes", "20000\n");  // the path is the machine's, the files are ours
  write("/sys/fs/cgroup/memory/memory.usage_in_bytes", "12000\n");
  write("/sys/fs/cgroup/memory/memory.stat", "inactive_file 1\ntotal_inactive_file 2000\n");
  EXPECT_EQ(left(), 10000u);
  write("/sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
  EXPECT_EQ(left(), 100u * 1024);
}

TEST_F(HostMemory, OfThisMachineIsPlausible) {
  EXPECT_GT(available_host_memory(), std::size_t{1} << 20);
}

}  // namespace
}  // namespace gradflow::kernels
