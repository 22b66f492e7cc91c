#include "simt/simt_backend.h"

namespace gradflow::kernels::cuda {
namespace {

// cuBLAS cannot be emulated; what stands in for it only has to be right.
class PlainMatmul final : public Matmul {
 public:
  PlainMatmul(Queue& queue, const MatmulDesc& desc) : queue_(queue), d_(desc) {}
  std::size_t workspace_bytes() const noexcept override { return 0; }
  void run(const void* a, const void* b, const void* bias, void* y, void*) override {
    const auto* pa = static_cast<const float*>(a);
    const auto* pb = static_cast<const float*>(b);
    auto* py = static_cast<float*>(y);
    if (d_.bias) {
      broadcast_rows(queue_, static_cast<const float*>(bias), py, static_cast<std::size_t>(d_.m),
                     static_cast<std::size_t>(d_.n));
    }
    for (std::int64_t i = 0; i < d_.m; ++i) {
      for (std::int64_t j = 0; j < d_.n; ++j) {
        double sum = d_.bias || d_.accumulate ? static_cast<double>(py[i * d_.n + j]) : 0.0;
        for (std::int64_t l = 0; l < d_.k; ++l) {
          const float from_a = d_.transpose_a ? pa[l * d_.m + i] : pa[i * d_.k + l];
          const float from_b = d_.transpose_b ? pb[j * d_.k + l] : pb[l * d_.n + j];
          sum += static_cast<double>(from_a) * static_cast<double>(from_b);
        }
        py[i * d_.n + j] = static_cast<float>(sum);
      }
    }
  }

 private:
  Queue& queue_;
  MatmulDesc d_;
};

}  // namespace

std::shared_ptr<Matmul> SimtBackend::prepare_matmul(const MatmulDesc& desc) {
  require_supported(desc.dtype, "matmul");
  return std::make_shared<PlainMatmul>(queue_, desc);
}

}  // namespace gradflow::kernels::cuda
