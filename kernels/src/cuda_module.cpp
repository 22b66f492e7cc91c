// Finds and opens the CUDA module, and turns every way that can fail into one sentence.
//
// The module is a shared library of its own so that a program starts without the CUDA libraries and
// runs where there are none. Once opened it stays for the life of the process: backends made by it
// hold code from it.
#include <dlfcn.h>
#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "gradflow/kernels/error.h"
#include "gradflow/kernels/module_interface.h"

namespace gradflow::kernels {
namespace {

namespace fs = std::filesystem;

constexpr const char* kModuleFile = "libgradflow_cuda.so";
constexpr const char* kModuleVariable = "GRADFLOW_CUDA_MODULE";

// Directories to look in, in order. None of these calls throws for a path that is absent.
std::vector<fs::path> module_directories() {
  std::error_code ignored;
  const fs::path program_directory = fs::read_symlink("/proc/self/exe", ignored).parent_path();
  std::vector<fs::path> found{program_directory};
  Dl_info self{};  // the file this code is linked into: the program, or a library that holds gradflow
  if (dladdr(reinterpret_cast<const void*>(&cuda_device_count), &self) != 0 && self.dli_fname != nullptr) {
    if (const fs::path file = fs::canonical(self.dli_fname, ignored); !file.empty()) {
      found.push_back(file.parent_path());
    }
  }
#ifdef GRADFLOW_CUDA_MODULE_DIR  // colon-separated; relative ones start at the program's directory
  std::string_view rest = GRADFLOW_CUDA_MODULE_DIR;
  while (!rest.empty()) {
    const std::size_t end = std::min(rest.find(':'), rest.size());
    if (end > 0) found.push_back(program_directory / rest.substr(0, end));
    rest.remove_prefix(std::min(end + 1, rest.size()));
  }
#endif
  return found;
}

// Opening the module maps some 200 MB of libraries, which takes a quarter of a second. A machine without a
// driver gets its answer without that. The driver stays loaded; the module would load it too.
void require_driver() {
  if (dlopen("libcuda.so.1", RTLD_LAZY | RTLD_LOCAL) != nullptr) return;
  throw UserError("no NVIDIA driver found (libcuda.so.1 is not installed)");
}

// The module's file; throws UserError with the reason alone when there is none.
fs::path find_module() {
  std::error_code ignored;
  if (const char* chosen = std::getenv(kModuleVariable); chosen != nullptr && *chosen != '\0') {
    const fs::path path = fs::absolute(chosen, ignored);
    if (!fs::is_regular_file(path, ignored)) {
      throw UserError(fmt::format("{}={} is not a file", kModuleVariable, chosen));
    }
    return path;
  }
  for (const fs::path& directory : module_directories()) {
    if (fs::path path = directory / kModuleFile; fs::is_regular_file(path, ignored)) {
      require_driver();
      return path;
    }
  }
  throw UserError(fmt::format("no CUDA module {} found (built without CUDA?)", kModuleFile));
}

struct Module {
  CudaCountFunction count = nullptr;
  CudaOpenFunction open = nullptr;
};

Module load_module() {
  const fs::path path = find_module();
  void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) {
    const char* why = dlerror();
    throw UserError(fmt::format("cannot load the CUDA module: {}", why != nullptr ? why : path.c_str()));
  }
  const auto symbol = [&](const char* name) {
    void* address = dlsym(library, name);
    if (address == nullptr) {
      throw UserError(fmt::format("{} is no CUDA module of gradflow: it lacks {}", path.c_str(), name));
    }
    return address;
  };
  return {.count = reinterpret_cast<CudaCountFunction>(symbol(kCudaCountSymbol)),
          .open = reinterpret_cast<CudaOpenFunction>(symbol(kCudaOpenSymbol))};
}

constexpr std::size_t kReasonBytes = 1024;

}  // namespace

int cuda_device_count(std::string* reason) {
  const auto none = [&](std::string_view why) {
    if (reason != nullptr) reason->assign(why);
    return 0;
  };
  try {
    char why[kReasonBytes] = "";
    const int count = load_module().count(kBackendInterfaceVersion, why, sizeof why);
    if (count <= 0) return none(why[0] != '\0' ? why : "the CUDA driver reports no device");
    return count;
  } catch (const std::exception& e) {
    return none(e.what());
  } catch (...) {
    return none("the CUDA module failed in an unknown way");
  }
}

std::unique_ptr<Backend> open_cuda(int ordinal) {
  try {
    char why[kReasonBytes] = "";
    std::unique_ptr<Backend> backend(load_module().open(kBackendInterfaceVersion, ordinal, why, sizeof why));
    if (!backend) throw UserError(why[0] != '\0' ? why : "the CUDA module gave no reason");
    return backend;
  } catch (const UserError& e) {
    throw UserError(fmt::format("no CUDA device: {}", e.what()));
  }
}

}  // namespace gradflow::kernels
