#include <memory>
#include <vector>

#include "gradflow/kernels/error.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/launchers.h"
#include "kernels/cuda/optimizer.cuh"

namespace gradflow::kernels::cuda {
namespace {

using UpdateKernel = decltype(Kernel{"", sgd_update_f32});

UpdateKernel kernel_of(OptimizerKind kind, bool stats) {
  switch (kind) {
    case OptimizerKind::sgd:
      return stats ? GRADFLOW_KERNEL(sgd_update_stats_f32) : GRADFLOW_KERNEL(sgd_update_f32);
    case OptimizerKind::nesterov:
      return stats ? GRADFLOW_KERNEL(nesterov_update_stats_f32) : GRADFLOW_KERNEL(nesterov_update_f32);
    case OptimizerKind::adam:
      return stats ? GRADFLOW_KERNEL(adam_update_stats_f32) : GRADFLOW_KERNEL(adam_update_f32);
    case OptimizerKind::adamw:
      return stats ? GRADFLOW_KERNEL(adamw_update_stats_f32) : GRADFLOW_KERNEL(adamw_update_f32);
  }
  throw InternalError("optimizer kind " + std::to_string(static_cast<int>(kind)) + " has no CUDA kernel");
}

TensorOnDevice describe(const UpdateSlice& slice, unsigned first_chunk) {
  TensorOnDevice t{};
  t.w = static_cast<float*>(slice.w);
  t.dw = static_cast<const float*>(slice.dw);
  t.m = static_cast<float*>(slice.first_moment);
  t.v = static_cast<float*>(slice.second_moment);
  t.copy = static_cast<Bf16*>(slice.w_bf16);
  t.w_stats = slice.w_stats;
  t.dw_stats = slice.dw_stats;
  t.update_stats = slice.update_stats;
  t.n = slice.n;
  t.first_chunk = first_chunk;
  t.chunks = static_cast<unsigned>((slice.n + kChunk - 1) / kChunk);
  t.vector = all_aligned16(t.w, t.dw, t.m, t.v, t.copy);
  t.decay = slice.decay;
  return t;
}

void require_complete(const UpdateDesc& desc, std::span<const UpdateSlice> slices) {
  if (desc.scalars == nullptr) throw InternalError("prepare_update: the optimizer's scalars are missing");
  const bool adam = desc.kind == OptimizerKind::adam || desc.kind == OptimizerKind::adamw;
  const bool momentum = desc.kind != OptimizerKind::sgd;  // plain SGD may do without
  for (const UpdateSlice& slice : slices) {
    if (slice.n == 0) continue;
    if (slice.w == nullptr || slice.dw == nullptr || (momentum && slice.first_moment == nullptr) ||
        (adam && slice.second_moment == nullptr)) {
      throw InternalError("prepare_update: a tensor lacks its weights, gradients or moments");
    }
  }
}

// Owns the table on the device. The parts lie in one allocation, each at a multiple of 256 bytes.
class DeviceUpdate final : public Update {
 public:
  DeviceUpdate(Queue& queue, Backend& memory, const UpdateDesc& desc, std::span<const UpdateSlice> slices)
      : queue_(queue), table_memory_(nullptr, Deallocate{&memory}) {
    std::vector<TensorOnDevice> tensors;
    std::vector<unsigned> tensor_of_chunk;
    bool stats = false;
    for (const UpdateSlice& slice : slices) {
      if (slice.n == 0) continue;
      tensors.push_back(describe(slice, static_cast<unsigned>(tensor_of_chunk.size())));
      tensor_of_chunk.insert(tensor_of_chunk.end(), tensors.back().chunks,
                             static_cast<unsigned>(tensors.size() - 1));
      stats = stats || slice.w_stats != nullptr || slice.dw_stats != nullptr || slice.update_stats != nullptr;
    }
    if (tensors.empty()) return;

    const auto room = [](std::size_t bytes) { return (bytes + 255) / 256 * 256; };
    const std::size_t tensor_bytes = tensors.size() * sizeof(TensorOnDevice);
    const std::size_t chunk_bytes = tensor_of_chunk.size() * sizeof(unsigned);
    const std::size_t ticket_bytes = tensors.size() * sizeof(unsigned);
    const std::size_t partial_bytes = stats ? tensor_of_chunk.size() * sizeof(StatsSet<3>) : 0;
    table_memory_.reset(
        memory.allocate(room(tensor_bytes) + room(chunk_bytes) + room(ticket_bytes) + partial_bytes));
    auto* at = static_cast<std::byte*>(table_memory_.get());
    memory.copy_in(at, tensors.data(), tensor_bytes);
    table_.tensors = reinterpret_cast<const TensorOnDevice*>(at);
    at += room(tensor_bytes);
    memory.copy_in(at, tensor_of_chunk.data(), chunk_bytes);
    table_.tensor_of_chunk = reinterpret_cast<const unsigned*>(at);
    at += room(chunk_bytes);
    memory.zero(at, ticket_bytes);
    table_.tickets = reinterpret_cast<unsigned*>(at);
    at += room(ticket_bytes);
    table_.partials = stats ? reinterpret_cast<StatsSet<3>*>(at) : nullptr;
    table_.scalars = desc.scalars;
    table_.chunks = static_cast<unsigned>(tensor_of_chunk.size());
    kernel_ = kernel_of(desc.kind, stats);
  }

  void run() override {
    if (table_.chunks == 0) return;
    launch(queue_, kernel_, flat_grid(queue_, table_.chunks, 1), table_);
  }

 private:
  struct Deallocate {
    Backend* memory;
    void operator()(void* pointer) const noexcept { memory->deallocate(pointer); }
  };

  Queue& queue_;
  std::unique_ptr<void, Deallocate> table_memory_;
  UpdateTable table_{};
  UpdateKernel kernel_{};
};

}  // namespace

std::unique_ptr<Update> make_update(Queue& queue, Backend& memory, const UpdateDesc& desc,
                                    std::span<const UpdateSlice> slices) {
  require_supported(desc.dtype, "prepare_update");
  require_complete(desc, slices);
  return std::make_unique<DeviceUpdate>(queue, memory, desc, slices);
}

}  // namespace gradflow::kernels::cuda
