// The loader of the CUDA module: every way it can be absent or wrong ends in one sentence.
#include <dlfcn.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>

#include "gradflow/kernels/error.h"
#include "gradflow/kernels/module_interface.h"

namespace gradflow::kernels {
namespace {

constexpr const char* kVariable = "GRADFLOW_CUDA_MODULE";

// Points the loader to a file while in scope.
class ChosenModule {
 public:
  explicit ChosenModule(const std::string& path) {
    if (const char* old = std::getenv(kVariable)) before_ = old;
    setenv(kVariable, path.c_str(), 1);
  }
  ~ChosenModule() {
    if (before_.empty()) {
      unsetenv(kVariable);
    } else {
      setenv(kVariable, before_.c_str(), 1);
    }
  }
  ChosenModule(const ChosenModule&) = delete;
  ChosenModule& operator=(const ChosenModule&) = delete;

 private:
  std::string before_;
};

std::string fake(const std::string& name) { return GRADFLOW_FAKE_MODULES "/fake_" + name + ".so"; }

std::string reason_of_count() {
  std::string reason;
  EXPECT_EQ(cuda_device_count(&reason), 0);
  return reason;
}

std::string reason_of_open(int ordinal = 0) {
  try {
    const auto backend = open_cuda(ordinal);
  } catch (const UserError& e) {
    return e.what();
  }
  ADD_FAILURE() << "cuda:" << ordinal << " was opened";
  return {};
}

void expect_contains(const std::string& text, const std::string& part) {
  EXPECT_NE(text.find(part), std::string::npos) << "'" << text << "' lacks '" << part << "'";
}

TEST(CudaModule, AnswersOnThisMachine) {
  std::string reason;
  const int count = cuda_device_count(&reason);
  ASSERT_GE(count, 0);
  EXPECT_EQ(cuda_device_count(nullptr), count);
  if (count == 0) {
    EXPECT_FALSE(reason.empty());
    EXPECT_EQ(reason.find('\n'), std::string::npos);
    EXPECT_EQ(reason_of_open(), "no CUDA device: " + reason);
    const char* required = std::getenv("REQUIRE_GPU");
    if (required && std::string(required) == "1") FAIL() << "REQUIRE_GPU=1, but: " << reason;
  } else {
    EXPECT_TRUE(reason.empty());
    const auto backend = open_cuda(0);
    EXPECT_EQ(backend->info().name, "cuda:0");
    EXPECT_GT(backend->info().memory_bytes, 0u);
    expect_contains(reason_of_open(count), "cuda:" + std::to_string(count) + " asked for");
  }
}

TEST(CudaModule, NamesAPathThatIsNoFile) {
  const ChosenModule chosen("/nowhere/libgradflow_cuda.so");
  expect_contains(reason_of_count(), "GRADFLOW_CUDA_MODULE=/nowhere/libgradflow_cuda.so is not a file");
  expect_contains(reason_of_open(), "no CUDA device: GRADFLOW_CUDA_MODULE=/nowhere");
}

TEST(CudaModule, RefusesADirectory) {
  const ChosenModule chosen("/tmp");
  expect_contains(reason_of_count(), "is not a file");
}

TEST(CudaModule, RefusesGarbage) {
  const std::string path = ::testing::TempDir() + "garbage_module.so";
  std::ofstream(path) << "this is no shared library";
  const ChosenModule chosen(path);
  expect_contains(reason_of_count(), "cannot load the CUDA module: ");
  expect_contains(reason_of_count(), path);
  expect_contains(reason_of_open(), "cannot load the CUDA module: ");
  std::filesystem::remove(path);
}

TEST(CudaModule, RefusesALibraryThatIsNotOurs) {
  const ChosenModule chosen(fake("truncated"));
  expect_contains(reason_of_count(), std::string("it lacks ") + kCudaOpenSymbol);
}

TEST(CudaModule, PassesOnThatInterfacesDiffer) {
  const ChosenModule chosen(fake("old_interface"));
  expect_contains(reason_of_count(),
                  "has interface -7, the program wants " + std::to_string(kBackendInterfaceVersion));
  expect_contains(reason_of_open(), "no CUDA device: the CUDA module has interface -7");
}

TEST(CudaModule, SaysSoWhenThereIsNoReason) {
  const ChosenModule chosen(fake("silent"));
  EXPECT_EQ(reason_of_count(), "the CUDA driver reports no device");
  expect_contains(reason_of_open(), "gave no reason");
}

// The module is loaded with RTLD_LOCAL and hides its type information, so its gradflow::UserError and the
// program's are two objects: catching by type works only because they compare by name.
TEST(CudaModule, ExceptionsKeepTheirTypeAcrossTheModule) {
  const ChosenModule chosen(fake("throwing"));
  expect_contains(reason_of_count(), "thrown while counting");
  EXPECT_EQ(reason_of_open(0), "no CUDA device: thrown while opening");
  EXPECT_THROW(open_cuda(1), InternalError);
}

#ifdef GRADFLOW_CUDA_MODULE_FILE
// A module chosen by hand is opened even where the loader sees no driver: its own reason comes through.
TEST(CudaModule, TheRealOneAnswersByItself) {
  const ChosenModule chosen(GRADFLOW_CUDA_MODULE_FILE);
  std::string reason;
  const int count = cuda_device_count(&reason);
  EXPECT_EQ(count == 0, !reason.empty());
  if (count == 0) {
    expect_contains(reason, "cudaError");
    EXPECT_EQ(reason_of_open(), "no CUDA device: " + reason);
  }
}

TEST(CudaModule, TheRealOneChecksTheInterfaceFirst) {
  void* library = dlopen(GRADFLOW_CUDA_MODULE_FILE, RTLD_NOW | RTLD_LOCAL);
  ASSERT_NE(library, nullptr) << dlerror();
  const auto count = reinterpret_cast<CudaCountFunction>(dlsym(library, kCudaCountSymbol));
  const auto open = reinterpret_cast<CudaOpenFunction>(dlsym(library, kCudaOpenSymbol));
  ASSERT_NE(count, nullptr);
  ASSERT_NE(open, nullptr);
  char reason[256] = "";
  EXPECT_EQ(count(kBackendInterfaceVersion + 1, reason, sizeof reason), 0);
  expect_contains(reason, "rebuild both together");
  char longer[256] = "";
  EXPECT_EQ(open(kBackendInterfaceVersion + 1, 0, longer, sizeof longer), nullptr);
  EXPECT_STREQ(longer, reason);
  char cut[8] = "";  // a short buffer gets a short, terminated text
  EXPECT_EQ(open(kBackendInterfaceVersion + 1, 0, cut, sizeof cut), nullptr);
  EXPECT_EQ(std::string(cut), std::string(reason).substr(0, 7));
  EXPECT_EQ(count(kBackendInterfaceVersion + 1, nullptr, 0), 0);
}
#endif

}  // namespace
}  // namespace gradflow::kernels
