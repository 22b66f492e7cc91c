// A sequence of launches as a CUDA graph: captured once, replayed often.
#pragma once

#include <functional>
#include <memory>

#include "gradflow/kernels/backend.h"
#include "kernels/cuda/device_queue.h"

namespace gradflow::kernels::cuda {

// Captures what `launches` queues on the queue's stream. When `launches` throws, the capture is ended, the
// stream is usable again and the exception goes on. The queue must outlive the recording.
std::unique_ptr<Recording> record(DeviceQueue& queue, const std::function<void()>& launches);

}  // namespace gradflow::kernels::cuda
