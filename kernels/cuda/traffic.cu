#include "kernels/cuda/launch.h"
#include "kernels/cuda/launchers.h"
#include "kernels/cuda/traffic.cuh"

namespace gradflow::kernels::cuda {

void move_memory(Queue& queue, const MoveMemory& a) {
  if (a.n == 0) return;
  const BlockGrid grid = flat_grid(queue, a.n, kStreamItemsPerBlock<float>);
  switch (a.kind) {
    case Traffic::read:
      return launch(queue, GRADFLOW_KERNEL(memory_read_f32), grid, a.a, a.y, a.n, all_aligned16(a.a));
    case Traffic::copy:
      return launch(queue, GRADFLOW_KERNEL(memory_copy_f32), grid, a.a, a.y, a.n, all_aligned16(a.a, a.y));
    case Traffic::add:
      return launch(queue, GRADFLOW_KERNEL(memory_add_f32), grid, a.a, a.b, a.y, a.n,
                    all_aligned16(a.a, a.b, a.y));
  }
}

}  // namespace gradflow::kernels::cuda
