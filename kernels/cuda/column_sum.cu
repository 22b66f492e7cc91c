#include "kernels/cuda/column_sum.cuh"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/launchers.h"

namespace gradflow::kernels::cuda {

void column_sum(Queue& queue, const ColumnSum& a) {
  visit_storage(a.dtype, "column_sum", [&]<class S>() {
    if (a.rows == 0 || a.columns == 0 || a.mode == GradMode::none) return;
    const auto* x = static_cast<const S*>(a.x);
    const bool vector = a.columns % kPackOf<S> == 0 && all_aligned16(x);
    launch(queue, GRADFLOW_KERNEL_OF(S, column_sum), tile_grid<S>(queue, a.rows, a.columns, vector), x,
           static_cast<float*>(a.y), a.rows, a.columns, vector, a.mode == GradMode::accumulate, queue.scratch);
  });
}

void broadcast_rows(Queue& queue, DType dtype, const float* bias, void* y, std::size_t rows, std::size_t columns) {
  visit_storage(dtype, "broadcast_rows", [&]<class S>() {
    if (rows == 0 || columns == 0) return;
    const bool vector = columns % kPackOf<S> == 0 && all_aligned16(bias, y);
    launch(queue, GRADFLOW_KERNEL_OF(S, broadcast_rows),
           matrix_grid(queue, rows, vector ? columns / kPackOf<S> : columns, kBlockThreads, 4), bias, static_cast<S*>(y),
           rows, columns, vector);
  });
}

void mark_alive(Queue& queue, const MarkAlive& a) {
  visit_storage(a.dtype, "mark_alive", [&]<class S>() {
    if (a.rows == 0 || a.columns == 0) return;
    const auto* y = static_cast<const S*>(a.y);
    const bool vector = a.columns % kPackOf<S> == 0 && all_aligned16(y);
    launch(queue, GRADFLOW_KERNEL_OF(S, mark_alive), tile_grid<S>(queue, a.rows, a.columns, vector), y, a.alive,
           a.rows, a.columns, vector);
  });
}

}  // namespace gradflow::kernels::cuda
