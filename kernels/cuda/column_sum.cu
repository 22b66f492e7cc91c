#include "kernels/cuda/column_sum.cuh"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/launchers.h"

namespace gradflow::kernels::cuda {

void column_sum(Queue& queue, const ColumnSum& a) {
  visit_storage(a.dtype, "column_sum", [&]<class S>() {
    if (a.rows == 0 || a.columns == 0 || a.mode == GradMode::none) return;
    launch(queue, GRADFLOW_KERNEL_OF(S, column_sum), matrix_grid(queue, a.rows, a.columns, kReduceTileColumns, 16),
           static_cast<const S*>(a.x), static_cast<float*>(a.y), a.rows, a.columns,
           a.mode == GradMode::accumulate, queue.scratch);
  });
}

void broadcast_rows(Queue& queue, DType dtype, const float* bias, void* y, std::size_t rows, std::size_t columns) {
  visit_storage(dtype, "broadcast_rows", [&]<class S>() {
    if (rows == 0 || columns == 0) return;
    launch(queue, GRADFLOW_KERNEL_OF(S, broadcast_rows), matrix_grid(queue, rows, columns, kBlockThreads, 4), bias,
           static_cast<S*>(y), rows, columns);
  });
}

void mark_alive(Queue& queue, const MarkAlive& a) {
  visit_storage(a.dtype, "mark_alive", [&]<class S>() {
    if (a.rows == 0 || a.columns == 0) return;
    launch(queue, GRADFLOW_KERNEL_OF(S, mark_alive), matrix_grid(queue, a.rows, a.columns, kReduceTileColumns, 16),
           static_cast<const S*>(a.y), a.alive, a.rows, a.columns);
  });
}

}  // namespace gradflow::kernels::cuda
