// Matrix products, prepared once and run often. The rules of every call stand in kernels/backend.h.
#pragma once

#include <cstddef>
#include <cstdint>

#include "gradflow/kernels/dtype.h"

namespace gradflow::kernels {

// y[m,n] = op(a) * op(b) (+ bias[n])  or, with accumulate, y += op(a) * op(b).
// op(a) is m x k: a is stored [m,k], or [k,m] if transpose_a. op(b) is k x n: stored [k,n], or [n,k]
// if transpose_b. bias and accumulate exclude each other. m, n or k may be 0 (k = 0 gives zeros or
// the bias). y aliases nothing. With bf16 operands the bias is f32 and sums are f32; where y is bf16, a backend
// may round the bias to bf16 before adding it.
struct MatmulDesc {
  DType dtype = DType::f32;
  std::int64_t m = 0, n = 0, k = 0;
  bool transpose_a = false, transpose_b = false;
  bool accumulate = false;
  bool bias = false;
  DType y_dtype = dtype;  // bf16 operands may give a bf16 or an f32 result; others one of their own type
  bool operator==(const MatmulDesc&) const = default;
};

// A matrix product prepared once and run often; stateless between runs, valid while its backend is.
class Matmul {
 public:
  virtual ~Matmul() = default;
  virtual std::size_t workspace_bytes() const noexcept = 0;
  // bias is null unless the description asked for one; workspace may be null if 0 bytes are needed.
  virtual void run(const void* a, const void* b, const void* bias, void* y, void* workspace) = 0;
};

}  // namespace gradflow::kernels
