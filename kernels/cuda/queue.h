// What a launcher needs to know about the device it queues on. Plain C++: no CUDA header, so the same
// launchers compile against the host emulation.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "gradflow/kernels/dtype.h"

namespace gradflow::kernels::cuda {

inline constexpr unsigned kBlockThreads = 256;
inline constexpr unsigned kBlocksPerMultiprocessor = 8;  // 8 x 256 threads fill one
inline constexpr std::size_t kReductionBytesPerBlock = 512;

// Device memory that reductions over a grid share; launches on one stream never overlap in it.
//   tickets   one counter per group of blocks, zero between launches (the last block resets it)
//   partials  kReductionBytesPerBlock for each of max_blocks blocks
struct ReductionScratch {
  unsigned* tickets = nullptr;
  void* partials = nullptr;
};

struct BlockGrid {
  unsigned x = 1, y = 1;               // blocks
  unsigned threads_x = kBlockThreads;  // threads of a block
  unsigned threads_y = 1;
  unsigned shared_bytes = 0;  // dynamic shared memory of a block
};

class Queue {
 public:
  virtual ~Queue() = default;

  // Queues one kernel and checks it at once; the only launch site. `entry` is the kernel's address,
  // `arguments` one pointer per parameter. Throws InternalError naming the kernel. Not used by the host
  // emulation, which calls kernels as functions.
  virtual void launch(const char* name, const BlockGrid& grid, const void* entry, void** arguments) = 0;

  // At least `bytes` of device memory, 256-byte aligned, valid until the next call. What an earlier call
  // returned stays allocated, since a recorded graph may still use it.
  virtual void* workspace(std::size_t bytes) = 0;

  unsigned max_blocks() const noexcept { return multiprocessors * kBlocksPerMultiprocessor; }

  unsigned multiprocessors = 1;
  ReductionScratch scratch;
};

// A flat grid: enough blocks for `items`, no more than fill the device; the kernel strides.
inline BlockGrid flat_grid(const Queue& queue, std::size_t items, std::size_t items_per_block) {
  const std::size_t needed = items / items_per_block + (items % items_per_block != 0);
  return {.x = static_cast<unsigned>(std::clamp<std::size_t>(needed, 1, queue.max_blocks()))};
}

// A grid over a matrix: threads_x covers columns (a power of two, at most max_threads_x), threads_y rows.
// Blocks in y share the rows of one column tile; there are several only while the device is not full.
inline BlockGrid matrix_grid(const Queue& queue, std::size_t rows, std::size_t columns,
                             unsigned max_threads_x, std::size_t rows_per_thread) {
  BlockGrid grid;
  grid.threads_x = 1;
  while (grid.threads_x < max_threads_x && grid.threads_x < columns) grid.threads_x *= 2;
  grid.threads_y = kBlockThreads / grid.threads_x;
  // Below the limit of gridDim.x (2^31 - 1) for any row that fits in a device's memory.
  const std::size_t tiles = std::max<std::size_t>((columns + grid.threads_x - 1) / grid.threads_x, 1);
  const std::size_t rows_per_block = grid.threads_y * rows_per_thread;
  const std::size_t wanted = (rows + rows_per_block - 1) / rows_per_block;
  const std::size_t room = std::max<std::size_t>(queue.max_blocks() / tiles, 1);
  grid.x = static_cast<unsigned>(tiles);
  grid.y = static_cast<unsigned>(std::clamp<std::size_t>(wanted, 1, std::min<std::size_t>(room, 65535)));
  return grid;
}

template <class... Pointers>
bool all_aligned16(const Pointers*... pointers) {
  return ((reinterpret_cast<std::uintptr_t>(pointers) % 16 == 0) && ...);
}

// Throw UserError unless `dtype` is f32, or one of f32 and bf16.
void require_supported(DType dtype, const char* operation);
void require_storage(DType dtype, const char* operation);

}  // namespace gradflow::kernels::cuda
