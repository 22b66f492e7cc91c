// Owned memory of a backend.
#pragma once

#include <cstddef>
#include <utility>

#include "gradflow/kernels/backend.h"

namespace gradflow {

// One block, freed with the object; the backend must outlive it.
class DeviceMemory {
 public:
  DeviceMemory() = default;
  DeviceMemory(kernels::Backend& backend, std::size_t bytes)
      : backend_(&backend), data_(backend.allocate(bytes)), bytes_(bytes) {}
  DeviceMemory(DeviceMemory&& o) noexcept
      : backend_(o.backend_), data_(std::exchange(o.data_, nullptr)), bytes_(std::exchange(o.bytes_, 0)) {}
  DeviceMemory& operator=(DeviceMemory&& o) noexcept {
    std::swap(backend_, o.backend_);
    std::swap(data_, o.data_);
    std::swap(bytes_, o.bytes_);
    return *this;
  }
  ~DeviceMemory() {
    if (data_) backend_->deallocate(data_);
  }

  void* data() const noexcept { return data_; }
  std::size_t bytes() const noexcept { return bytes_; }
  template <class T> T* as() const noexcept { return static_cast<T*>(data_); }
  void* at(std::size_t offset) const noexcept { return static_cast<std::byte*>(data_) + offset; }

 private:
  kernels::Backend* backend_ = nullptr;
  void* data_ = nullptr;
  std::size_t bytes_ = 0;
};

}  // namespace gradflow
