#include "kernels/cuda/profiling.h"

#include <cuda_profiler_api.h>

#include <cstdlib>
#include <string_view>

#include "kernels/cuda/check.h"

namespace gradflow::kernels::cuda {
namespace {

class EventTimer final : public Timer {
 public:
  explicit EventTimer(const DeviceQueue& queue) : queue_(queue) {
    queue_.activate();
    check(cudaEventCreate(&start_), "creating an event");
    const cudaError_t status = cudaEventCreate(&stop_);
    if (status != cudaSuccess) static_cast<void>(cudaEventDestroy(start_));
    check(status, "creating an event");
  }
  ~EventTimer() override {
    static_cast<void>(cudaSetDevice(queue_.ordinal()));
    static_cast<void>(cudaEventDestroy(start_));
    static_cast<void>(cudaEventDestroy(stop_));
    static_cast<void>(cudaGetLastError());
  }
  EventTimer(const EventTimer&) = delete;
  EventTimer& operator=(const EventTimer&) = delete;

  void start() override { record(start_); }
  void stop() override { record(stop_); }
  double seconds() override {
    queue_.activate();
    check(cudaEventSynchronize(stop_), "waiting for an event");
    float milliseconds = 0;
    check(cudaEventElapsedTime(&milliseconds, start_, stop_), "reading the time between two events");
    return 1e-3 * static_cast<double>(milliseconds);
  }

 private:
  void record(cudaEvent_t event) {
    queue_.activate();
    check(cudaEventRecord(event, queue_.stream()), "recording an event");
  }

  const DeviceQueue& queue_;
  cudaEvent_t start_ = nullptr, stop_ = nullptr;
};

}  // namespace

Ranges::Ranges() {
  const char* wanted = std::getenv("GRADFLOW_NVTX");
  if (wanted == nullptr || std::string_view(wanted) != "0") domain_ = nvtxDomainCreateA("gradflow");
}

Ranges::~Ranges() {
  if (domain_ != nullptr) nvtxDomainDestroy(domain_);
}

// Without a profiler NVTX registers nothing and returns null, and nothing needs a range.
RangeName Ranges::name(const char* text) {
  if (domain_ == nullptr) return nullptr;
  const auto [at, fresh] = names_.try_emplace(text, nullptr);
  if (fresh) at->second = nvtxDomainRegisterStringA(domain_, text);
  return at->second;
}

void Ranges::begin(RangeName name) noexcept {
  nvtxEventAttributes_t event{};
  event.version = NVTX_VERSION;
  event.size = NVTX_EVENT_ATTRIB_STRUCT_SIZE;
  event.messageType = NVTX_MESSAGE_TYPE_REGISTERED;
  event.message.registered = static_cast<nvtxStringHandle_t>(const_cast<void*>(name));
  nvtxDomainRangePushEx(domain_, &event);
}

void Ranges::end() noexcept { nvtxDomainRangePop(domain_); }

void profile_start(const DeviceQueue& queue) {
  queue.synchronize();
  check(cudaProfilerStart(), "starting the profiler's window");
}

void profile_stop(const DeviceQueue& queue) {
  queue.synchronize();
  check(cudaProfilerStop(), "ending the profiler's window");
}

std::unique_ptr<Timer> make_timer(const DeviceQueue& queue) { return std::make_unique<EventTimer>(queue); }

}  // namespace gradflow::kernels::cuda
