// The CUDA kernels and their launchers as a backend on the host, thread by thread: what a test of a Backend
// runs on, the kernels can be tested with.
#pragma once

#include <cstdlib>
#include <cstring>
#include <memory>
#include <vector>

#include "gradflow/kernels/host_timer.h"
#include "kernels/cuda/kernel_backend.h"

namespace gradflow::kernels::cuda {

class SimtQueue final : public Queue {
 public:
  SimtQueue() {
    multiprocessors = 1;  // 8 blocks at most: the largest inputs of the tests make them stride
    partials_.resize(max_blocks() * kReductionBytesPerBlock / sizeof(double));
    tickets_.resize(max_blocks());
    scratch = {.tickets = tickets_.data(), .partials = partials_.data()};
  }
  void launch(const char*, const BlockGrid&, const void*, void**) override { std::abort(); }
  // Garbage of exactly that size, and what was handed out before is gone: a sanitizer sees both.
  void* workspace(std::size_t bytes) override {
    void* memory = nullptr;
    if (posix_memalign(&memory, 256, bytes) != 0) throw std::bad_alloc();
    std::memset(memory, 0xff, bytes);
    workspace_.reset(memory);
    return memory;
  }
  bool idle() const {  // every launch must leave the tickets as it found them
    for (const unsigned t : tickets_) {
      if (t != 0) return false;
    }
    return true;
  }

 private:
  std::vector<double> partials_;
  std::vector<unsigned> tickets_;
  struct Free {
    void operator()(void* memory) const { std::free(memory); }
  };
  std::unique_ptr<void, Free> workspace_;
};

class SimtBackend : public KernelBackend {
 public:
  SimtBackend() { info_.name = "simt"; }
  const DeviceInfo& info() const noexcept override { return info_; }
  bool is_host() const noexcept override { return true; }

  void* allocate(std::size_t bytes) override {  // of exactly that size, so that a sanitizer sees the end
    void* memory = nullptr;
    if (bytes != 0 && posix_memalign(&memory, 256, bytes) != 0) throw std::bad_alloc();
    return memory;
  }
  void deallocate(void* pointer) noexcept override { std::free(pointer); }
  void copy_in(void* device, const void* host, std::size_t bytes) override { move(device, host, bytes); }
  void copy_out(void* host, const void* device, std::size_t bytes) override { move(host, device, bytes); }
  void copy(void* to, const void* from, std::size_t bytes) override { move(to, from, bytes); }
  void zero(void* pointer, std::size_t bytes) override {
    if (bytes != 0) std::memset(pointer, 0, bytes);
  }
  void synchronize() override {}
  std::unique_ptr<Recording> record(const std::function<void()>&) override { return nullptr; }
  RangeName register_range(const char*) override { return nullptr; }
  void range_begin(RangeName) noexcept override {}
  void range_end() noexcept override {}
  void profile_start() override {}
  void profile_stop() override {}
  std::unique_ptr<Timer> make_timer() override { return std::make_unique<HostTimer>(); }
  void allow_tf32() override { std::abort(); }  // no test of a kernel asks
  std::shared_ptr<Matmul> prepare_matmul(const MatmulDesc& desc) override;
  // cuDNN cannot be emulated, and no test of a kernel needs a convolution.
  std::shared_ptr<Convolution> prepare_convolution(const ConvolutionDesc&) override { std::abort(); }

  const SimtQueue& simt_queue() const noexcept { return queue_; }

 protected:
  Queue& queue() noexcept override { return queue_; }

 private:
  static void move(void* to, const void* from, std::size_t bytes) {
    if (bytes != 0) std::memmove(to, from, bytes);
  }

  SimtQueue queue_;
  DeviceInfo info_;
};

}  // namespace gradflow::kernels::cuda
