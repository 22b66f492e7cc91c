#include "kernels/cuda/matmul.h"

#include <cublas_v2.h>

#include <utility>
#include <vector>

#include "kernels/cuda/check.h"
#include "kernels/cuda/launchers.h"

namespace gradflow::kernels::cuda {
namespace {

void check_cublas(cublasStatus_t status, const char* what) {
  if (status == CUBLAS_STATUS_SUCCESS) return;
  static_cast<void>(cudaGetLastError());
  const std::string text = fmt::format("cuBLAS: {} failed: {}", what, cublasGetStatusString(status));
  if (status == CUBLAS_STATUS_ALLOC_FAILED) throw UserError(text + ": out of device memory");
  throw InternalError(text);
}

cudaDataType_t type_of(DType dtype) { return dtype == DType::bf16 ? CUDA_R_16BF : CUDA_R_32F; }

// cuBLAS recommends 32 MiB on Hopper. A workspace of our own, on one stream, makes results repeatable.
constexpr std::size_t kWorkspaceBytes = std::size_t{32} << 20;

class Cublas final : public MatmulLibrary {
 public:
  explicit Cublas(DeviceQueue& queue) : queue_(queue) {
    queue_.activate();
    check_cublas(cublasCreate(&handle_), "cublasCreate");
    try {
      workspace_ = allocate_on_device(kWorkspaceBytes);
      check_cublas(cublasSetStream(handle_, queue_.stream()), "cublasSetStream");  // resets the workspace
      check_cublas(cublasSetWorkspace(handle_, workspace_, kWorkspaceBytes), "cublasSetWorkspace");
      check_cublas(cublasSetMathMode(handle_, CUBLAS_PEDANTIC_MATH), "cublasSetMathMode");
      check_cublas(cublasSetAtomicsMode(handle_, CUBLAS_ATOMICS_NOT_ALLOWED), "cublasSetAtomicsMode");
    } catch (...) {
      release();
      throw;
    }
  }
  ~Cublas() override { release(); }
  Cublas(const Cublas&) = delete;
  Cublas& operator=(const Cublas&) = delete;

  std::shared_ptr<Matmul> prepare(const MatmulDesc& desc, bool tf32) override;

  std::string version() const override {
    int number = 0;
    check_cublas(cublasGetVersion(handle_, &number), "cublasGetVersion");
    return fmt::format("cuBLAS {}.{}.{}", number / 10000, number / 100 % 100, number % 100);
  }

  cublasHandle_t handle() const noexcept { return handle_; }
  DeviceQueue& queue() const noexcept { return queue_; }

 private:
  // Nothing where the process is ending and the runtime is gone (cudaErrorCudartUnloading): a backend that a static
  // object owns is destroyed after cuBLAS' own statics, and cublasDestroy would use them.
  void release() noexcept {
    if (cudaSetDevice(queue_.ordinal()) == cudaErrorCudartUnloading) return;
    static_cast<void>(cublasDestroy(handle_));
    static_cast<void>(cudaFree(workspace_));
    static_cast<void>(cudaGetLastError());
  }

  DeviceQueue& queue_;
  cublasHandle_t handle_ = nullptr;
  void* workspace_ = nullptr;
  struct Prepared {
    MatmulDesc desc;
    bool tf32;
    std::shared_ptr<Matmul> product;
  };
  std::vector<Prepared> prepared_;
};

// cuBLAS counts columns first. A row-major [m, n] matrix is a column-major [n, m] one, and
// y = op(a) op(b) becomes y^T = op(b)^T op(a)^T: so the operands change places and nothing is transposed.
class CublasMatmul final : public Matmul {
 public:
  CublasMatmul(Cublas& library, const MatmulDesc& desc, bool tf32) : library_(library), desc_(desc), tf32_(tf32) {}

  std::size_t workspace_bytes() const noexcept override { return 0; }  // the handle has its own

  // With a bias, y starts as its rows and the product is added: one pass less than adding it afterwards.
  void run(const void* a, const void* b, const void* bias, void* y, void* /*workspace*/) override {
    const auto [dtype, m, n, k, transpose_a, transpose_b, accumulate, with_bias, y_dtype] = desc_;
    if (m == 0 || n == 0) return;
    DeviceQueue& queue = library_.queue();
    queue.activate();
    if (with_bias) {
      broadcast_rows(queue, y_dtype, static_cast<const float*>(bias), y, static_cast<std::size_t>(m),
                     static_cast<std::size_t>(n));
    }
    if (k == 0) {
      if (!with_bias && !accumulate) {
        const std::size_t bytes = static_cast<std::size_t>(m) * static_cast<std::size_t>(n) * size_of(y_dtype);
        check(cudaMemsetAsync(y, 0, bytes, queue.stream()), "clearing an empty product");
      }
      return;
    }
    const float one = 1.0f;
    const float beta = accumulate || with_bias ? 1.0f : 0.0f;
    // Pedantic f32 for f32 unless TF32 was asked for; for bf16 the tensor cores, whose products are exact and sums
    // f32. The handle's mode would override the call's.
    const bool pedantic = dtype == DType::f32 && !tf32_;
    const bool tf32 = dtype == DType::f32 && tf32_;
    check_cublas(cublasSetMathMode(library_.handle(), pedantic ? CUBLAS_PEDANTIC_MATH
                                                      : tf32   ? CUBLAS_TF32_TENSOR_OP_MATH
                                                               : CUBLAS_MATH_DISALLOW_REDUCED_PRECISION_REDUCTION),
                 "cublasSetMathMode");
    check_cublas(
        cublasGemmEx_64(library_.handle(), transpose_b ? CUBLAS_OP_T : CUBLAS_OP_N,
                        transpose_a ? CUBLAS_OP_T : CUBLAS_OP_N, n, m, k, &one, b, type_of(dtype), transpose_b ? k : n, a,
                        type_of(dtype), transpose_a ? m : k, &beta, y, type_of(y_dtype), n,
                        pedantic ? CUBLAS_COMPUTE_32F_PEDANTIC
                        : tf32   ? CUBLAS_COMPUTE_32F_FAST_TF32
                                 : CUBLAS_COMPUTE_32F,
                        CUBLAS_GEMM_DEFAULT),
        "a matrix product");
  }

 private:
  Cublas& library_;
  MatmulDesc desc_;
  bool tf32_;
};

std::shared_ptr<Matmul> Cublas::prepare(const MatmulDesc& desc, bool tf32) {
  require_storage(desc.dtype, "matmul");
  require_storage(desc.y_dtype, "matmul");
  if (desc.dtype == DType::f32 && desc.y_dtype != DType::f32)
    throw InternalError("a matrix product of f32 operands has an f32 result");
  if (desc.m < 0 || desc.n < 0 || desc.k < 0) {
    throw InternalError(fmt::format("matrix product of negative size {}x{}x{}", desc.m, desc.n, desc.k));
  }
  if (desc.bias && desc.accumulate) throw InternalError("a matrix product takes a bias or accumulates, not both");
  for (const Prepared& p : prepared_) {
    if (p.desc == desc && p.tf32 == tf32) return p.product;
  }
  return prepared_.emplace_back(desc, tf32, std::make_shared<CublasMatmul>(*this, desc, tf32)).product;
}

}  // namespace

std::unique_ptr<MatmulLibrary> open_matmul_library(DeviceQueue& queue) { return std::make_unique<Cublas>(queue); }

}  // namespace gradflow::kernels::cuda
