// What the CUDA module exports (extern "C"): internal to module and loader, which must agree on it.
#pragma once

#include <cstddef>

#include "gradflow/kernels/backend.h"

namespace gradflow::kernels {

// `error` receives a NUL-terminated reason. The version changes whenever backend.h, a header of contract/ or this one
// does.
inline constexpr int kBackendInterfaceVersion = 14;
using CudaCountFunction = int (*)(int interface_version, char* error, std::size_t error_size);
using CudaOpenFunction = Backend* (*)(int interface_version, int ordinal, char* error,
                                      std::size_t error_size);
inline constexpr const char* kCudaCountSymbol = "gradflow_cuda_device_count";
inline constexpr const char* kCudaOpenSymbol = "gradflow_cuda_open";

}  // namespace gradflow::kernels
