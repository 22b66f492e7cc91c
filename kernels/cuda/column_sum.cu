#include "kernels/cuda/column_sum.cuh"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/launchers.h"

namespace gradflow::kernels::cuda {

void column_sum(Queue& queue, const ColumnSum& a) {
  require_supported(a.dtype, "column_sum");
  if (a.rows == 0 || a.columns == 0 || a.mode == GradMode::none) return;
  launch(queue, GRADFLOW_KERNEL(column_sum_f32),
         matrix_grid(queue, a.rows, a.columns, kReduceTileColumns, 16), static_cast<const float*>(a.x),
         static_cast<float*>(a.y), a.rows, a.columns, a.mode == GradMode::accumulate, queue.scratch);
}

void broadcast_rows(Queue& queue, const float* bias, float* y, std::size_t rows, std::size_t columns) {
  if (rows == 0 || columns == 0) return;
  launch(queue, GRADFLOW_KERNEL(broadcast_rows_f32), matrix_grid(queue, rows, columns, kBlockThreads, 4),
         bias, y, rows, columns);
}

void mark_alive(Queue& queue, const MarkAlive& a) {
  require_supported(a.dtype, "mark_alive");
  if (a.rows == 0 || a.columns == 0) return;
  launch(queue, GRADFLOW_KERNEL(mark_alive_f32),
         matrix_grid(queue, a.rows, a.columns, kReduceTileColumns, 16), static_cast<const float*>(a.y),
         a.alive, a.rows, a.columns);
}

}  // namespace gradflow::kernels::cuda
