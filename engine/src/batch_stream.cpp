#include "batch_stream.h"

#include <algorithm>
#include <cstring>
#include <numeric>
#include <utility>

namespace gradflow {

BatchStream::BatchStream(const BatchGather& gather, const DataSplit& split)
    : gather_(gather), images_(split.images), labels_(split.labels), in_files_(split.in_files) {
  for (Slot& slot : slots_) slot.copied = gather.backend().make_marker();
}

BatchStream::~BatchStream() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  changed_.notify_all();
  if (thread_.joinable()) thread_.join();
  try {  // the device may still read from a slot
    for (Slot& slot : slots_) slot.copied->wait();
  } catch (...) {  // a device that failed reads nothing any more
  }
}

BatchStream::Slot& BatchStream::prepare_slot(BatchRequest request) {
  Slot& slot = slots_[next_];
  slot.copied->wait();
  const std::size_t bytes = bytes_of(request.indices.size());
  if (slot.memory.bytes() < bytes) slot.memory = HostMemory(gather_.backend(), bytes);
  slot.request = std::move(request);
  return slot;
}

// labels [batch], images [batch, features], crops [batch, 3]: labels first, where they are aligned.
void BatchStream::collect(Slot& slot) const {
  const BatchRequest& r = slot.request;
  const std::size_t batch = r.indices.size(), features = gather_.features();
  auto* labels = reinterpret_cast<std::uint16_t*>(slot.memory.at(0));
  std::uint8_t *images = slot.memory.at(2 * batch), *crops = images + batch * features;
  for (std::size_t i = 0; i < batch; ++i) {
    const auto sample = static_cast<std::size_t>(r.indices[i]);
    if (in_files_)
      in_files_->read(sample, {images + i * features, features});
    else
      std::memcpy(images + i * features, images_.data() + sample * features, features);
    labels[i] = labels_[sample];
  }
  if (r.moved)
    draw_crops(gather_.augmentation(), r.seed, r.step, {reinterpret_cast<std::int8_t*>(crops), 3 * batch});
}

void BatchStream::work() {
  std::unique_lock lock(mutex_);
  while (true) {
    changed_.wait(lock, [&] { return stop_ || (pending_ && !collected_); });
    if (stop_) return;
    Slot& slot = slots_[next_];
    lock.unlock();
    std::exception_ptr failure;
    try {
      collect(slot);
    } catch (...) {
      failure = std::current_exception();
    }
    lock.lock();
    failure_ = failure;
    collected_ = true;
    changed_.notify_all();
  }
}

void BatchStream::request(BatchRequest request) {
  wait_for_thread();  // one that nobody took is collected in vain
  prepare_slot(std::move(request));
  if (!thread_.joinable()) thread_ = std::thread([this] { work(); });
  {
    const std::lock_guard lock(mutex_);
    pending_ = true;
    collected_ = false;
  }
  changed_.notify_all();
}

bool BatchStream::wait_for_thread() {
  std::unique_lock lock(mutex_);
  if (!pending_) return false;
  changed_.wait(lock, [&] { return collected_; });
  pending_ = false;
  if (failure_) std::rethrow_exception(std::exchange(failure_, nullptr));
  return true;
}

void BatchStream::load(BatchRequest request, const Tensor& x, const Tensor& labels) {
  gather_.check(request.indices.size(), x, labels);
  if (!wait_for_thread() || slots_[next_].request != request) collect(prepare_slot(std::move(request)));
  Slot& slot = slots_[next_];
  next_ = 1 - next_;

  Backend& backend = gather_.backend();
  const std::size_t batch = slot.request.indices.size(), bytes = bytes_of(batch);
  if (staged_.bytes() < bytes) {
    staged_ = DeviceMemory(backend, bytes);
    std::vector<std::int32_t> in_order(batch);  // a batch lies as it is wanted
    std::iota(in_order.begin(), in_order.end(), 0);
    indices_ = DeviceMemory(backend, batch * sizeof(std::int32_t));
    backend.copy_in(indices_.data(), in_order.data(), indices_.bytes());
  }
  backend.copy_in_later(staged_.data(), slot.memory.at(0), batch * (2 + gather_.features() + (slot.request.moved ? 3 : 0)));
  slot.copied->set();
  const std::uint8_t *images = staged_.as<std::uint8_t>() + 2 * batch, *crops = images + batch * gather_.features();
  gather_.run({.images = images,
               .labels = staged_.as<std::uint16_t>(),
               .indices = indices_.as<std::int32_t>(),
               .crops = slot.request.moved ? reinterpret_cast<const std::int8_t*>(crops) : nullptr},
              x, labels);
}

}  // namespace gradflow
