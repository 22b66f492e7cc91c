// The host backend's functions, one source file a group; cpu_backend.cpp puts them behind the interface.
#pragma once

#include <memory>
#include <span>
#include <string>

#include "gradflow/kernels/backend.h"
#include "parallel.h"

namespace gradflow::kernels::cpu {

void pointwise_forward(const Context& context, const PointwiseForward& a);
void pointwise_backward(const Context& context, const PointwiseBackward& a);
void bias_activation_forward(const Context& context, const BiasActivationForward& a);
void bias_activation_backward(const Context& context, const BiasActivationBackward& a);
void residual_forward(const Context& context, const ResidualForward& a);
void residual_backward(const Context& context, const ResidualBackward& a);
void scalar_forward(const Context& context, const ScalarForward& a);
void scalar_backward(const Context& context, const ScalarBackward& a);
void batch_norm_forward(const Context& context, const BatchNormForward& a);
void batch_norm_backward(const Context& context, const BatchNormBackward& a);
void max_pool_forward(const Context& context, const MaxPoolForward& a);
void max_pool_backward(const Context& context, const MaxPoolBackward& a);
void average_pool_forward(const Context& context, const AveragePoolForward& a);
void average_pool_backward(const Context& context, const AveragePoolBackward& a);
void shortcut_forward(const Context& context, const ShortcutForward& a);
void shortcut_backward(const Context& context, const ShortcutBackward& a);
void column_sum(const Context& context, const ColumnSum& a);
void softmax_cross_entropy(const Context& context, const SoftmaxCrossEntropy& a);
void stats(const Context& context, const StatsOf& a);
void difference_stats(const Context& context, const DifferenceStats& a);
void exponent_histogram(const Context& context, const ExponentHistogram& a);
void mark_alive(const Context& context, const MarkAlive& a);
void gather_batch(const Context& context, const GatherBatch& a);
void move_memory(const Context& context, const MoveMemory& a);
void cast(const Context& context, const Cast& a);
void random_fill(const Context& context, const RandomFill& a);
void fill(const Context& context, DType dtype, void* pointer, std::size_t n, double value);

std::unique_ptr<Update> make_update(const Context& context, const UpdateDesc& desc,
                                    std::span<const UpdateSlice> slices);
std::unique_ptr<Matmul> make_matmul_f64(const Context& context, const MatmulDesc& desc);

std::unique_ptr<Convolution> make_convolution_f64(const Context& context, const ConvolutionDesc& desc);

// oneDNN's convolutions, seen by convolution_f32.cpp alone; lives as long as what it prepared.
class VendorConvolution {
 public:
  virtual ~VendorConvolution() = default;
  virtual std::unique_ptr<Convolution> prepare(const ConvolutionDesc& desc) = 0;
  static std::unique_ptr<VendorConvolution> open(const Context& context);
};

// oneDNN, seen by matmul_f32.cpp alone: its engine and stream live as long as this object.
class VendorMatmul {
 public:
  virtual ~VendorMatmul() = default;
  virtual std::unique_ptr<Matmul> prepare(const MatmulDesc& desc) = 0;
  static std::unique_ptr<VendorMatmul> open(int threads);
  static std::string version();  // "oneDNN 2.6.3"
};

}  // namespace gradflow::kernels::cpu
