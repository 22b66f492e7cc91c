#include "kernels/cuda/device_queue.h"

#include <cstdlib>
#include <cstring>

#include "kernels/cuda/check.h"

namespace gradflow::kernels::cuda {
namespace {

bool wanted(const char* variable) {
  const char* value = std::getenv(variable);
  return value != nullptr && *value != '\0' && std::strcmp(value, "0") != 0;
}

// Faults of a kernel's own making are reported by whatever call comes next.
bool may_be_an_earlier_fault(cudaError_t status) {
  return status != cudaErrorInvalidValue && status != cudaErrorInvalidConfiguration &&
         status != cudaErrorLaunchOutOfResources;
}

// No machine code for the device, and no PTX that this driver can compile for it.
bool has_no_code(cudaError_t status) {
  return status == cudaErrorNoKernelImageForDevice || status == cudaErrorInvalidDeviceFunction ||
         status == cudaErrorInvalidPtx || status == cudaErrorUnsupportedPtxVersion ||
         status == cudaErrorJitCompilerNotFound || status == cudaErrorJitCompilationDisabled;
}

}  // namespace

void* allocate_on_device(std::size_t bytes) {
  void* memory = nullptr;
  const cudaError_t status = cudaMalloc(&memory, bytes);
  // A size that no address space holds may be an invalid value instead; nothing else about the call can be.
  if (status == cudaErrorMemoryAllocation || status == cudaErrorInvalidValue) {
    static_cast<void>(cudaGetLastError());
    std::size_t available = 0, total = 0;
    if (cudaMemGetInfo(&available, &total) != cudaSuccess) static_cast<void>(cudaGetLastError());
    throw UserError(fmt::format("out of device memory: {} bytes wanted, {} of {} available", bytes, available, total));
  }
  check(status, fmt::format("allocating {} bytes", bytes));
  return memory;
}

DeviceQueue::DeviceQueue(int ordinal) : ordinal_(ordinal), wait_for_each_(wanted("GRADFLOW_CUDA_SYNC")) {
  try {
    activate();
    int count = 0;
    check(cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, ordinal), "reading the device's size");
    multiprocessors = static_cast<unsigned>(count);
    check(cudaDeviceGetAttribute(&capability_.major, cudaDevAttrComputeCapabilityMajor, ordinal), "reading the device's capability");
    check(cudaDeviceGetAttribute(&capability_.minor, cudaDevAttrComputeCapabilityMinor, ordinal), "reading the device's capability");
    check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "creating a stream");

    const std::size_t partial_bytes = max_blocks() * kReductionBytesPerBlock;
    const std::size_t ticket_bytes = max_blocks() * sizeof(unsigned);
    void* memory = allocate_on_device(partial_bytes + ticket_bytes);
    allocations_.push_back(memory);
    scratch.partials = memory;
    scratch.tickets = reinterpret_cast<unsigned*>(static_cast<std::byte*>(memory) + partial_bytes);
    check(cudaMemsetAsync(scratch.tickets, 0, ticket_bytes, stream_), "clearing reduction scratch");
  } catch (...) {
    release();
    throw;
  }
}

DeviceQueue::~DeviceQueue() { release(); }

void DeviceQueue::release() noexcept {
  static_cast<void>(cudaSetDevice(ordinal_));
  if (stream_ != nullptr) {
    static_cast<void>(cudaStreamSynchronize(stream_));
    static_cast<void>(cudaStreamDestroy(stream_));
  }
  for (void* memory : allocations_) static_cast<void>(cudaFree(memory));
  static_cast<void>(cudaGetLastError());
}

void DeviceQueue::activate() const { check(cudaSetDevice(ordinal_), "selecting the device"); }

void DeviceQueue::synchronize() const {
  activate();
  check(cudaStreamSynchronize(stream_), "work queued before");
}

void DeviceQueue::launch(const char* name, const BlockGrid& grid, const void* entry, void** arguments) {
  activate();
  const dim3 blocks(grid.x, grid.y);
  const dim3 threads(grid.threads_x, grid.threads_y);
  cudaError_t status = cudaLaunchKernel(entry, blocks, threads, arguments, grid.shared_bytes, stream_);
  if (status == cudaSuccess && wait_for_each_) {
    cudaStreamCaptureStatus capture = cudaStreamCaptureStatusNone;
    status = cudaStreamIsCapturing(stream_, &capture);
    if (status == cudaSuccess && capture == cudaStreamCaptureStatusNone) status = cudaStreamSynchronize(stream_);
  }
  if (status == cudaSuccess) return;
  static_cast<void>(cudaGetLastError());
  if (has_no_code(status))
    throw UserError(not_built_for(fmt::format("cuda:{}", ordinal_), capability_, GRADFLOW_CUDA_ARCHITECTURES, describe(status)));
  const char* hint = !wait_for_each_ && may_be_an_earlier_fault(status)
                         ? "; an earlier kernel may be the cause, GRADFLOW_CUDA_SYNC=1 tells"
                         : "";
  throw InternalError(fmt::format("CUDA kernel {} ({}x{} blocks of {}x{} threads) failed: {}{}", name, grid.x, grid.y,
                                  grid.threads_x, grid.threads_y, describe(status), hint));
}

void* DeviceQueue::workspace(std::size_t bytes) {
  if (bytes > workspace_bytes_) {
    activate();
    allocations_.push_back(allocate_on_device(bytes));
    workspace_bytes_ = bytes;
  }
  return workspace_bytes_ == 0 ? nullptr : allocations_.back();
}

}  // namespace gradflow::kernels::cuda
