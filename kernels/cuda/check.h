// Errors of the CUDA runtime become exceptions; none stays behind to be blamed on a later call.
#pragma once

#include <cuda_runtime_api.h>

#include <string>

#include <fmt/format.h>

#include "gradflow/kernels/error.h"

namespace gradflow::kernels::cuda {

// "cudaErrorInvalidValue: invalid argument"
inline std::string describe(cudaError_t status) {
  return fmt::format("{}: {}", cudaGetErrorName(status), cudaGetErrorString(status));
}

// InternalError; UserError where others have the device to themselves, or its memory.
inline void check(cudaError_t status, std::string_view what) {
  if (status == cudaSuccess) return;
  static_cast<void>(cudaGetLastError());  // clears it, unless the context is lost
  const std::string text = fmt::format("CUDA: {} failed: {}", what, describe(status));
  if (status == cudaErrorMemoryAllocation || status == cudaErrorDevicesUnavailable) throw UserError(text);
  throw InternalError(text);
}

}  // namespace gradflow::kernels::cuda
