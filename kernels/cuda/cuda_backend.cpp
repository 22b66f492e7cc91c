#include "kernels/cuda/cuda_backend.h"

#include <algorithm>

#include "kernels/cuda/check.h"
#include "kernels/cuda/recording.h"

namespace gradflow::kernels::cuda {
namespace {

// What is loaded at first use only: kernels, those of cuBLAS and cuDNN, recordings. An arena must not take that, too.
constexpr std::size_t kLibraryBytes = std::size_t{256} << 20;

std::string cuda_version(int number) { return fmt::format("{}.{}", number / 1000, number % 1000 / 10); }

DeviceInfo describe_device(const DeviceQueue& queue, const MatmulLibrary& products) {
  cudaDeviceProp properties{};
  check(cudaGetDeviceProperties(&properties, queue.ordinal()), "reading the device's properties");
  int runtime = 0, driver = 0;
  check(cudaRuntimeGetVersion(&runtime), "reading the runtime's version");
  check(cudaDriverGetVersion(&driver), "reading the driver's version");
  DeviceInfo info;
  info.name = fmt::format("cuda:{}", queue.ordinal());
  info.model = fmt::format("{} ({})", properties.name, text_of(queue.capability()));
  info.libraries = fmt::format("CUDA {}, {}, driver for CUDA {}", cuda_version(runtime), products.version(),
                               cuda_version(driver));
  info.precision = "f32 (no TF32, no fast-math)";
  if (queue.capability().has_bf16_and_tf32()) info.precision += ", bf16 (f32 sums)";
  info.memory_bytes = properties.totalGlobalMem;
  info.cache_bytes = static_cast<std::size_t>(properties.l2CacheSize);
  info.threads = properties.multiProcessorCount;
  return info;
}

}  // namespace

// The first launch comes before all else: a module that was not built for this device says so.
CudaBackend::CudaBackend(int ordinal) : queue_(ordinal) {
  cuda::fill(queue_, DType::f32, queue_.scratch.partials, 1, 0.0);
  products_ = open_matmul_library(queue_);
  info_ = describe_device(queue_, *products_);
}

CudaBackend::~CudaBackend() {
  static_cast<void>(cudaSetDevice(queue_.ordinal()));
  static_cast<void>(cudaStreamSynchronize(queue_.stream()));
}

void* CudaBackend::allocate(std::size_t bytes) {
  if (bytes == 0) return nullptr;
  queue_.activate();
  return allocate_on_device(bytes);
}

std::size_t CudaBackend::available_bytes() {
  queue_.activate();
  std::size_t available = 0, total = 0;
  check(cudaMemGetInfo(&available, &total), "asking for free memory");
  return available - std::min(available, kLibraryBytes);
}

void CudaBackend::deallocate(void* pointer) noexcept {
  if (pointer == nullptr) return;
  static_cast<void>(cudaSetDevice(queue_.ordinal()));
  static_cast<void>(cudaFree(pointer));  // waits for the device
  static_cast<void>(cudaGetLastError());
}

// The runtime stages pageable memory before it returns; from pinned memory it reads later, so wait then.
void CudaBackend::copy_in(void* device, const void* host, std::size_t bytes) {
  if (bytes == 0) return;
  queue_.activate();
  check(cudaMemcpyAsync(device, host, bytes, cudaMemcpyHostToDevice, queue_.stream()), "copying to the device");
  cudaPointerAttributes kind{};
  const bool known = cudaPointerGetAttributes(&kind, host) == cudaSuccess;
  if (!known) static_cast<void>(cudaGetLastError());
  if (!known || kind.type != cudaMemoryTypeUnregistered) queue_.synchronize();
}

void CudaBackend::copy_out(void* host, const void* device, std::size_t bytes) {
  if (bytes == 0) return;
  queue_.activate();
  check(cudaMemcpyAsync(host, device, bytes, cudaMemcpyDeviceToHost, queue_.stream()), "copying from the device");
  queue_.synchronize();
}

void CudaBackend::copy(void* to, const void* from, std::size_t bytes) {
  if (bytes == 0) return;
  queue_.activate();
  check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, queue_.stream()), "copying on the device");
}

void CudaBackend::zero(void* pointer, std::size_t bytes) {
  if (bytes == 0) return;
  queue_.activate();
  check(cudaMemsetAsync(pointer, 0, bytes, queue_.stream()), "clearing memory");
}

void CudaBackend::synchronize() { queue_.synchronize(); }

std::unique_ptr<Recording> CudaBackend::record(const std::function<void()>& launches) {
  if (queue_.waits_for_each()) return nullptr;  // nothing inside a recording could be waited for
  return cuda::record(queue_, launches);
}

std::shared_ptr<Convolution> CudaBackend::prepare_convolution(const ConvolutionDesc& desc) {
  require_storage(desc.dtype, "convolution");
  require_convolution(desc);
  if (!convolutions_) convolutions_ = open_convolution_library(queue_);
  return convolutions_->prepare(desc, tf32_);
}

std::shared_ptr<Matmul> CudaBackend::prepare_matmul(const MatmulDesc& desc) {
  return products_->prepare(desc, tf32_);
}

// Vendors' products of bf16 numbers need what TF32 needs.
bool CudaBackend::supports(DType dtype) const noexcept {
  return KernelBackend::supports(dtype) && (dtype != DType::bf16 || queue_.capability().has_bf16_and_tf32());
}

void CudaBackend::allow_tf32() {
  require_tf32(info_.name, queue_.capability());
  tf32_ = true;
  info_.precision = "f32 with TF32 products (no fast-math), bf16 (f32 sums)";
}

}  // namespace gradflow::kernels::cuda
