// One launcher for each operation of Backend: checks the dtype, chooses grid and path, queues kernels.
// Each family is one .cu file; its kernels are in the .cuh of the same name.
#pragma once

#include <cstddef>
#include <memory>
#include <span>

#include "gradflow/kernels/backend.h"
#include "kernels/cuda/queue.h"

namespace gradflow::kernels::cuda {

void pointwise_forward(Queue& queue, const PointwiseForward& a);
void pointwise_backward(Queue& queue, const PointwiseBackward& a);
void bias_activation_forward(Queue& queue, const BiasActivationForward& a);
void bias_activation_backward(Queue& queue, const BiasActivationBackward& a);
void residual_forward(Queue& queue, const ResidualForward& a);
void residual_backward(Queue& queue, const ResidualBackward& a);
void scalar_forward(Queue& queue, const ScalarForward& a);
void scalar_backward(Queue& queue, const ScalarBackward& a);
void batch_norm_forward(Queue& queue, const BatchNormForward& a);
void batch_norm_backward(Queue& queue, const BatchNormBackward& a);
void max_pool_forward(Queue& queue, const MaxPoolForward& a);
void max_pool_backward(Queue& queue, const MaxPoolBackward& a);
void average_pool_forward(Queue& queue, const AveragePoolForward& a);
void average_pool_backward(Queue& queue, const AveragePoolBackward& a);
void shortcut_forward(Queue& queue, const ShortcutForward& a);
void shortcut_backward(Queue& queue, const ShortcutBackward& a);
void column_sum(Queue& queue, const ColumnSum& a);
void softmax_cross_entropy(Queue& queue, const SoftmaxCrossEntropy& a);
void stats(Queue& queue, const StatsOf& a);
void difference_stats(Queue& queue, const DifferenceStats& a);
void exponent_histogram(Queue& queue, const ExponentHistogram& a);
void mark_alive(Queue& queue, const MarkAlive& a);
void gather_batch(Queue& queue, const GatherBatch& a);
void move_memory(Queue& queue, const MoveMemory& a);
void cast(Queue& queue, const Cast& a);
void random_fill(Queue& queue, const RandomFill& a);
void fill(Queue& queue, DType dtype, void* pointer, std::size_t n, double value);

// `memory` holds the table of tensors; it and the queue must outlive the update.
std::unique_ptr<Update> make_update(Queue& queue, Backend& memory, const UpdateDesc& desc,
                                    std::span<const UpdateSlice> slices);

// y[r, c] = bias[c], rounded to y's type; what a matrix product with a bias then adds to.
void broadcast_rows(Queue& queue, DType dtype, const float* bias, void* y, std::size_t rows, std::size_t columns);

}  // namespace gradflow::kernels::cuda
