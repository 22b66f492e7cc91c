// Matrix products by cuBLAS; matmul.cpp is the only file that sees its headers.
#pragma once

#include <memory>
#include <string>

#include "gradflow/kernels/backend.h"
#include "kernels/cuda/device_queue.h"

namespace gradflow::kernels::cuda {

class MatmulLibrary {
 public:
  virtual ~MatmulLibrary() = default;
  virtual std::shared_ptr<Matmul> prepare(const MatmulDesc& desc, bool tf32) = 0;
  virtual std::string version() const = 0;  // "cuBLAS 13.1.0"
};

// `queue` must outlive the library and its products.
std::unique_ptr<MatmulLibrary> open_matmul_library(DeviceQueue& queue);

}  // namespace gradflow::kernels::cuda
