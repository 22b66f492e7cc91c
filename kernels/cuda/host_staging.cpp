// Batches on their way to the device: pinned memory of the host, copies that are only queued, and a wait for them.
#include "kernels/cuda/check.h"
#include "kernels/cuda/cuda_backend.h"

namespace gradflow::kernels::cuda {
namespace {

class EventMarker final : public Marker {
 public:
  explicit EventMarker(const DeviceQueue& queue) : queue_(queue) {
    queue_.activate();
    check(cudaEventCreateWithFlags(&event_, cudaEventDisableTiming), "making an event");
  }
  ~EventMarker() override { static_cast<void>(cudaEventDestroy(event_)); }
  EventMarker(const EventMarker&) = delete;
  EventMarker& operator=(const EventMarker&) = delete;

  void set() override {
    queue_.activate();
    check(cudaEventRecord(event_, queue_.stream()), "recording an event");
  }
  void wait() override {  // an event that was never recorded is done
    queue_.activate();
    check(cudaEventSynchronize(event_), "waiting for an event");
  }

 private:
  const DeviceQueue& queue_;
  cudaEvent_t event_ = nullptr;
};

}  // namespace

void* CudaBackend::allocate_host(std::size_t bytes) {
  if (bytes == 0) return nullptr;
  queue_.activate();
  void* memory = nullptr;
  const cudaError_t status = cudaMallocHost(&memory, bytes);
  if (status == cudaErrorMemoryAllocation) {
    static_cast<void>(cudaGetLastError());
    throw UserError(fmt::format("not enough memory of the host that can be pinned: {} bytes asked for", bytes));
  }
  check(status, fmt::format("pinning {} bytes", bytes));
  return memory;
}

void CudaBackend::deallocate_host(void* pointer) noexcept {
  if (pointer == nullptr) return;
  static_cast<void>(cudaSetDevice(queue_.ordinal()));
  static_cast<void>(cudaFreeHost(pointer));
  static_cast<void>(cudaGetLastError());
}

void CudaBackend::copy_in_later(void* device, const void* host, std::size_t bytes) {
  if (bytes == 0) return;
  queue_.activate();
  check(cudaMemcpyAsync(device, host, bytes, cudaMemcpyHostToDevice, queue_.stream()), "copying to the device");
}

std::unique_ptr<Marker> CudaBackend::make_marker() { return std::make_unique<EventMarker>(queue_); }

}  // namespace gradflow::kernels::cuda
