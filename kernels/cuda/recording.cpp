#include "kernels/cuda/recording.h"

#include "kernels/cuda/check.h"

namespace gradflow::kernels::cuda {
namespace {

struct DestroyGraph {
  void operator()(cudaGraph_t graph) const noexcept { static_cast<void>(cudaGraphDestroy(graph)); }
};
using Graph = std::unique_ptr<std::remove_pointer_t<cudaGraph_t>, DestroyGraph>;

class GraphRecording final : public Recording {
 public:
  GraphRecording(DeviceQueue& queue, cudaGraph_t graph) : queue_(queue) {
    check(cudaGraphInstantiate(&executable_, graph, 0), "preparing a recorded step");
  }
  ~GraphRecording() override {
    static_cast<void>(cudaSetDevice(queue_.ordinal()));
    static_cast<void>(cudaStreamSynchronize(queue_.stream()));  // a replay may still run
    static_cast<void>(cudaGraphExecDestroy(executable_));
    static_cast<void>(cudaGetLastError());
  }
  GraphRecording(const GraphRecording&) = delete;
  GraphRecording& operator=(const GraphRecording&) = delete;

  void replay() override {
    queue_.activate();
    check(cudaGraphLaunch(executable_, queue_.stream()), "replaying a recorded step");
  }

 private:
  DeviceQueue& queue_;
  cudaGraphExec_t executable_ = nullptr;
};

Graph end_capture(DeviceQueue& queue, cudaError_t& status) {
  cudaGraph_t graph = nullptr;
  status = cudaStreamEndCapture(queue.stream(), &graph);
  return Graph(graph);
}

}  // namespace

std::unique_ptr<Recording> record(DeviceQueue& queue, const std::function<void()>& launches) {
  queue.activate();
  // Relaxed: a kernel's first use may load its code, and the workspace may grow, while this thread captures.
  check(cudaStreamBeginCapture(queue.stream(), cudaStreamCaptureModeRelaxed), "starting to record");
  cudaError_t status = cudaSuccess;
  try {
    launches();
  } catch (...) {
    const Graph unfinished = end_capture(queue, status);
    static_cast<void>(cudaGetLastError());
    throw;
  }
  const Graph graph = end_capture(queue, status);
  check(status, "recording a step");
  return std::make_unique<GraphRecording>(queue, graph.get());
}

}  // namespace gradflow::kernels::cuda
