// The CUDA backend: one device, one stream. See gradflow/kernels/backend.h for what each call promises.
#pragma once

#include "kernels/cuda/convolution.h"
#include "kernels/cuda/device_queue.h"
#include "kernels/cuda/kernel_backend.h"
#include "kernels/cuda/matmul.h"
#include "kernels/cuda/profiling.h"

namespace gradflow::kernels::cuda {

class CudaBackend final : public KernelBackend {
 public:
  explicit CudaBackend(int ordinal);  // must exist
  ~CudaBackend() override;
  CudaBackend(const CudaBackend&) = delete;
  CudaBackend& operator=(const CudaBackend&) = delete;

  const DeviceInfo& info() const noexcept override { return info_; }
  bool supports(DType dtype) const noexcept override;
  bool is_host() const noexcept override { return false; }

  void* allocate(std::size_t bytes) override;
  std::size_t available_bytes() override;
  void deallocate(void* pointer) noexcept override;
  void copy_in(void* device, const void* host, std::size_t bytes) override;
  void* allocate_host(std::size_t bytes) override;
  void deallocate_host(void* pointer) noexcept override;
  void copy_in_later(void* device, const void* host, std::size_t bytes) override;
  std::unique_ptr<Marker> make_marker() override;
  void copy_out(void* host, const void* device, std::size_t bytes) override;
  void copy(void* to, const void* from, std::size_t bytes) override;
  void zero(void* pointer, std::size_t bytes) override;
  void synchronize() override;
  std::unique_ptr<Recording> record(const std::function<void()>& launches) override;
  RangeName register_range(const char* name) override { return ranges_.name(name); }
  void range_begin(RangeName name) noexcept override { ranges_.begin(name); }
  void range_end() noexcept override { ranges_.end(); }
  void profile_start() override { cuda::profile_start(queue_); }
  void profile_stop() override { cuda::profile_stop(queue_); }
  std::unique_ptr<Timer> make_timer() override { return cuda::make_timer(queue_); }
  void allow_tf32() override;
  std::shared_ptr<Matmul> prepare_matmul(const MatmulDesc& desc) override;
  std::shared_ptr<Convolution> prepare_convolution(const ConvolutionDesc& desc) override;

 protected:
  Queue& queue() noexcept override { return queue_; }

 private:
  DeviceQueue queue_;
  std::unique_ptr<MatmulLibrary> products_;
  std::unique_ptr<ConvolutionLibrary> convolutions_;  // null before the first
  DeviceInfo info_;
  bool tf32_ = false;
  Ranges ranges_;
};

}  // namespace gradflow::kernels::cuda
