// The part of a Backend that is kernels alone: every operation goes to its launcher. What remains for a
// derived class is memory, copies, recording and matrix products: the CUDA backend, and the host emulation
// of the tests.
#pragma once

#include "gradflow/kernels/backend.h"
#include "kernels/cuda/launchers.h"

namespace gradflow::kernels::cuda {

class KernelBackend : public Backend {
 public:
  bool supports(DType dtype) const noexcept override {
    return dtype == DType::f32 || dtype == DType::bf16;
  }

  void fill(DType dtype, void* pointer, std::size_t n, double value) override {
    cuda::fill(queue(), dtype, pointer, n, value);
  }
  std::unique_ptr<Update> prepare_update(const UpdateDesc& desc, std::span<const UpdateSlice> slices) override {
    return make_update(queue(), *this, desc, slices);
  }
  void pointwise_forward(const PointwiseForward& a) override { cuda::pointwise_forward(queue(), a); }
  void pointwise_backward(const PointwiseBackward& a) override { cuda::pointwise_backward(queue(), a); }
  void bias_activation_forward(const BiasActivationForward& a) override {
    cuda::bias_activation_forward(queue(), a);
  }
  void bias_activation_backward(const BiasActivationBackward& a) override {
    cuda::bias_activation_backward(queue(), a);
  }
  void residual_forward(const ResidualForward& a) override { cuda::residual_forward(queue(), a); }
  void residual_backward(const ResidualBackward& a) override { cuda::residual_backward(queue(), a); }
  void scalar_forward(const ScalarForward& a) override { cuda::scalar_forward(queue(), a); }
  void scalar_backward(const ScalarBackward& a) override { cuda::scalar_backward(queue(), a); }
  void batch_norm_forward(const BatchNormForward& a) override { cuda::batch_norm_forward(queue(), a); }
  void batch_norm_backward(const BatchNormBackward& a) override { cuda::batch_norm_backward(queue(), a); }
  void max_pool_forward(const MaxPoolForward& a) override { cuda::max_pool_forward(queue(), a); }
  void max_pool_backward(const MaxPoolBackward& a) override { cuda::max_pool_backward(queue(), a); }
  void average_pool_forward(const AveragePoolForward& a) override { cuda::average_pool_forward(queue(), a); }
  void average_pool_backward(const AveragePoolBackward& a) override { cuda::average_pool_backward(queue(), a); }
  void shortcut_forward(const ShortcutForward& a) override { cuda::shortcut_forward(queue(), a); }
  void shortcut_backward(const ShortcutBackward& a) override { cuda::shortcut_backward(queue(), a); }
  void column_sum(const ColumnSum& a) override { cuda::column_sum(queue(), a); }
  void softmax_cross_entropy(const SoftmaxCrossEntropy& a) override { cuda::softmax_cross_entropy(queue(), a); }
  void stats(const StatsOf& a) override { cuda::stats(queue(), a); }
  void difference_stats(const DifferenceStats& a) override { cuda::difference_stats(queue(), a); }
  void exponent_histogram(const ExponentHistogram& a) override { cuda::exponent_histogram(queue(), a); }
  void mark_alive(const MarkAlive& a) override { cuda::mark_alive(queue(), a); }
  void gather_batch(const GatherBatch& a) override { cuda::gather_batch(queue(), a); }
  void cast(const Cast& a) override { cuda::cast(queue(), a); }
  void random_fill(const RandomFill& a) override { cuda::random_fill(queue(), a); }
  void move_memory(const MoveMemory& a) override { cuda::move_memory(queue(), a); }

 protected:
  virtual Queue& queue() noexcept = 0;
};

}  // namespace gradflow::kernels::cuda
