// The two functions the module exports. Nothing is thrown out of them: reasons come back as text.
#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstring>

#include "gradflow/kernels/module_interface.h"
#include "kernels/cuda/check.h"
#include "kernels/cuda/cuda_backend.h"

namespace gradflow::kernels::cuda {
namespace {

void require_same_interface(int wanted) {
  if (wanted == kBackendInterfaceVersion) return;
  throw UserError(fmt::format("the CUDA module has interface {}, the program wants {}: rebuild both together",
                              kBackendInterfaceVersion, wanted));
}

// The devices the driver offers; throws UserError with the reason when it offers none.
int count_devices() {
  int count = 0;
  const cudaError_t status = cudaGetDeviceCount(&count);
  if (status == cudaSuccess && count > 0) return count;
  static_cast<void>(cudaGetLastError());
  if (status == cudaSuccess || status == cudaErrorNoDevice) {
    throw UserError(fmt::format("no device present ({})", describe(cudaErrorNoDevice)));
  }
  int driver = 0;
  if (status == cudaErrorInsufficientDriver && cudaDriverGetVersion(&driver) == cudaSuccess) {
    if (driver == 0) throw UserError(fmt::format("no NVIDIA driver found ({})", describe(status)));
    throw UserError(fmt::format("the driver is for CUDA {}.{}, this build for CUDA {}.{} ({})", driver / 1000,
                                driver % 1000 / 10, CUDART_VERSION / 1000, CUDART_VERSION % 1000 / 10,
                                describe(status)));
  }
  throw UserError(describe(status));
}

// Runs `action`; on an exception writes its text to `error` and returns `otherwise`.
template <class Result, class Action>
Result reported(char* error, std::size_t error_size, Result otherwise, const Action& action) noexcept {
  const auto report = [&](const char* text) {
    if (error == nullptr || error_size == 0) return;
    const std::size_t n = std::min(std::strlen(text), error_size - 1);
    std::memcpy(error, text, n);
    error[n] = '\0';
  };
  try {
    return action();
  } catch (const std::exception& e) {
    report(e.what());
  } catch (...) {
    report("unknown failure in the CUDA module");
  }
  return otherwise;
}

}  // namespace
}  // namespace gradflow::kernels::cuda

#define GRADFLOW_EXPORT extern "C" __attribute__((visibility("default")))

GRADFLOW_EXPORT int gradflow_cuda_device_count(int interface_version, char* error, std::size_t error_size) {
  using namespace gradflow::kernels::cuda;
  return reported(error, error_size, 0, [&] {
    require_same_interface(interface_version);
    return count_devices();
  });
}

GRADFLOW_EXPORT gradflow::kernels::Backend* gradflow_cuda_open(int interface_version, int ordinal, char* error,
                                                               std::size_t error_size) {
  using namespace gradflow::kernels::cuda;
  gradflow::kernels::Backend* none = nullptr;
  return reported(error, error_size, none, [&]() -> gradflow::kernels::Backend* {
    require_same_interface(interface_version);
    const int count = count_devices();
    if (ordinal < 0 || ordinal >= count) {
      throw gradflow::UserError(fmt::format("cuda:{} asked for, {} device{} present", ordinal, count,
                                            count == 1 ? "" : "s"));
    }
    return new CudaBackend(ordinal);
  });
}
