// Matrix products in f64, for gradient checks of small networks: clear loops that vectorize over n.
#include <cstring>

#include "functions.h"

namespace gradflow::kernels::cpu {
namespace {

class MatmulF64 final : public Matmul {
 public:
  MatmulF64(const Context& context, const MatmulDesc& desc)
      : context_(context),
        transpose_a_(desc.transpose_a),
        transpose_b_(desc.transpose_b),
        accumulate_(desc.accumulate),
        m_(static_cast<std::size_t>(desc.m)),
        n_(static_cast<std::size_t>(desc.n)),
        k_(static_cast<std::size_t>(desc.k)) {}

  // b is brought into [k, n] order first, so that the inner loop runs over contiguous columns.
  std::size_t workspace_bytes() const noexcept override {
    return transpose_b_ ? k_ * n_ * sizeof(double) : 0;
  }

  void run(const void* a, const void* b, const void* bias, void* y, void* workspace) override {
    const double* columns = static_cast<const double*>(b);
    if (transpose_b_ && m_ > 0) {
      transpose(columns, static_cast<double*>(workspace));
      columns = static_cast<const double*>(workspace);
    }
    for_each_index(context_, m_, m_ * n_ * k_ >= kSerialCheap, [&](std::size_t i) {
      row(static_cast<const double*>(a), columns, static_cast<const double*>(bias), i,
          static_cast<double*>(y) + i * n_);
    });
  }

 private:
  void transpose(const double* b, double* to) const {
    for (std::size_t j = 0; j < n_; ++j)
      for (std::size_t p = 0; p < k_; ++p) to[p * n_ + j] = b[j * k_ + p];
  }

  void row(const double* a, const double* b, const double* bias, std::size_t i, double* y) const {
    if (!accumulate_)
      for (std::size_t j = 0; j < n_; ++j) y[j] = bias ? bias[j] : 0.0;
    for (std::size_t p = 0; p < k_; ++p) {
      const double factor = transpose_a_ ? a[p * m_ + i] : a[i * k_ + p];
      const double* from = b + p * n_;
#pragma GCC ivdep
      for (std::size_t j = 0; j < n_; ++j) y[j] += factor * from[j];
    }
  }

  const Context& context_;
  bool transpose_a_, transpose_b_, accumulate_;
  std::size_t m_, n_, k_;
};

}  // namespace

std::unique_ptr<Matmul> make_matmul_f64(const Context& context, const MatmulDesc& desc) {
  return std::make_unique<MatmulF64>(context, desc);
}

}  // namespace gradflow::kernels::cpu
