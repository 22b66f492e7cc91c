// Batches handed to the device one by one: a thread of its own puts the next one together while the device is busy
// with this one.
//
// Two slots of (pinned) host memory take turns. request() gives the thread a batch to collect into the slot whose last
// copy is done; load() waits for it and queues its copy. The thread reads files and touches host memory, never the
// backend. What it throws is thrown by the next request() or load().
#pragma once

#include <condition_variable>
#include <cstdint>
#include <exception>
#include <memory>
#include <mutex>
#include <span>
#include <thread>
#include <vector>

#include "batch_gather.h"
#include "image_source.h"

namespace gradflow {

// A batch by what it is made from.
struct BatchRequest {
  std::vector<std::int32_t> indices;
  bool moved = false;  // with crops drawn for (seed, step)
  std::uint64_t seed = 0, step = 0;
  bool operator==(const BatchRequest&) const = default;
};

class BatchStream {
 public:
  // `gather` must outlive it, and so must the pixels and labels of `split` (which may be moved).
  BatchStream(const BatchGather& gather, const DataSplit& split);
  ~BatchStream();  // drops what is under way
  BatchStream(const BatchStream&) = delete;
  BatchStream& operator=(const BatchStream&) = delete;

  // Begins to collect a batch that load() will ask for next.
  void request(BatchRequest request);
  // Fills x and labels: from the batch requested before if it is this one, else from one collected now.
  void load(BatchRequest request, const Tensor& x, const Tensor& labels);

 private:
  // Memory of the host that copies to the device are queued from.
  class HostMemory {
   public:
    HostMemory() = default;
    HostMemory(Backend& backend, std::size_t bytes)
        : backend_(&backend), data_(backend.allocate_host(bytes)), bytes_(bytes) {}
    HostMemory(HostMemory&& o) noexcept { *this = std::move(o); }
    HostMemory& operator=(HostMemory&& o) noexcept {
      std::swap(backend_, o.backend_);
      std::swap(data_, o.data_);
      std::swap(bytes_, o.bytes_);
      return *this;
    }
    ~HostMemory() {
      if (data_) backend_->deallocate_host(data_);
    }
    std::uint8_t* at(std::size_t offset) const { return static_cast<std::uint8_t*>(data_) + offset; }
    std::size_t bytes() const { return bytes_; }

   private:
    Backend* backend_ = nullptr;
    void* data_ = nullptr;
    std::size_t bytes_ = 0;
  };

  struct Slot {
    BatchRequest request;
    HostMemory memory;  // see collect()
    std::unique_ptr<kernels::Marker> copied;
  };

  const BatchGather& gather_;
  std::span<const std::uint8_t> images_;
  std::span<const std::uint16_t> labels_;
  std::shared_ptr<const ImageSource> in_files_;  // null: the images lie in images_
  Slot slots_[2];
  int next_ = 0;  // the slot to fill
  DeviceMemory staged_, indices_;

  std::mutex mutex_;
  std::condition_variable changed_;
  bool pending_ = false;   // the thread has a batch to collect, or has collected one that nobody took
  bool collected_ = false;
  bool stop_ = false;
  std::exception_ptr failure_;
  std::thread thread_;  // started by the first request()

  std::size_t bytes_of(std::size_t batch) const { return batch * (2 + gather_.features() + 3); }
  Slot& prepare_slot(BatchRequest request);  // waits until its last copy is done
  void collect(Slot& slot) const;
  void work();
  bool wait_for_thread();  // true if it has collected a batch
};

}  // namespace gradflow
