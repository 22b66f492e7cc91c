// Backend: the contract between the engine and a device's arithmetic.
//
// One abstract class, two implementations: the host (kernels/cpu, always there) and CUDA
// (kernels/cuda, a shared module opened on demand). It knows pointers and sizes, no layers, no graph. What each
// call does stands in the header of contract/ that holds its arguments.
//
// Rules that hold for every call below, unless its comment says otherwise:
//   * Pointers are device pointers of this backend (host pointers on the host backend), contiguous,
//     row-major, channels last. They may have any alignment of their element type.
//   * Lengths may be 0; then nothing is read or written (statistics stay untouched).
//   * Work is queued on the backend's one stream in call order; the host backend runs it at once.
//   * Arguments do not alias unless the comment says "may alias".
//   * dtype is f32, bf16 or, on the host backend, f64; anything else throws UserError. Optimizer updates know no bf16.
//   * Storage in dtype, arithmetic in f32 for f32 and bf16, in f64 for f64; never fast-math; denormals stay.
//     Parameters, their gradients, means and moments of a bf16 call are f32 (arithmetic_type()): a bias, the sum of
//     columns, batch statistics. Matrix products and convolutions read bf16 weights and give f32 gradients of them.
//   * A bf16 result is the f32 result of the widened inputs, rounded once, to nearest even; NaN stays NaN.
//     Statistics of it are of the stored, rounded values; bf16 has f32's range, so "denormal" is the same. Matrix
//     products and convolutions of bf16 numbers are the vendors': f32 sums in any order, and what is added to a
//     bf16 result (a bias, an earlier gradient) may meet a sum that was rounded already; denormals may count as zero.
//   * Equal inputs give equal bits for the same backend, build, thread count and (sums) alignment; no float atomics.
//   * Passing sinks (`*_stats`, `*_exponents`, may be null) changes no bit of any other output. A sink points to one
//     Stats, or to kExponentBins counters, in device memory and is ADDED to.
//   * A backend is used by one thread at a time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "gradflow/kernels/contract/batch_norm.h"
#include "gradflow/kernels/contract/bias_activation.h"
#include "gradflow/kernels/contract/column_sum.h"
#include "gradflow/kernels/contract/convolution.h"
#include "gradflow/kernels/contract/fill.h"
#include "gradflow/kernels/contract/gates.h"
#include "gradflow/kernels/contract/inputs.h"
#include "gradflow/kernels/contract/loss.h"
#include "gradflow/kernels/contract/matmul.h"
#include "gradflow/kernels/contract/optimizer.h"
#include "gradflow/kernels/contract/pointwise.h"
#include "gradflow/kernels/contract/pooling.h"
#include "gradflow/kernels/contract/probes.h"
#include "gradflow/kernels/contract/queue.h"
#include "gradflow/kernels/contract/residual.h"
#include "gradflow/kernels/contract/scalar.h"
#include "gradflow/kernels/contract/shortcut.h"
#include "gradflow/kernels/contract/traffic.h"
#include "gradflow/kernels/dtype.h"

namespace gradflow::kernels {

struct DeviceInfo {
  std::string name;       // "cpu" or "cuda:0"
  std::string model;      // "AMD EPYC 9B14", "NVIDIA H100 80GB HBM3"
  std::string libraries;  // "oneDNN 2.6.3, OpenMP 2 threads" or "CUDA 13.0, cuBLAS 13.0, driver 580.65"
  std::string precision;  // "f32 (no TF32, no fast-math)"
  std::size_t memory_bytes = 0;
  std::size_t cache_bytes = 0;  // the last level of cache: a GPU's L2; 0: unknown
  int threads = 1;        // host threads, or multiprocessors
};

class Backend {
 public:
  virtual ~Backend() = default;
  virtual const DeviceInfo& info() const noexcept = 0;
  virtual bool supports(DType dtype) const noexcept = 0;
  virtual bool is_host() const noexcept = 0;  // device pointers may be read by the CPU

  // Memory. allocate: 256-byte aligned, uninitialized; throws UserError naming the bytes asked for and
  // available when there is not enough. allocate(0) returns null; deallocate(null) does nothing.
  virtual void* allocate(std::size_t bytes) = 0;
  // What allocate() could give now, as far as can be told without asking; the largest number where nothing is known.
  virtual std::size_t available_bytes() { return std::numeric_limits<std::size_t>::max(); }
  virtual void deallocate(void* pointer) noexcept = 0;
  // Memory of the host that copies may be queued from: pinned on CUDA. The rules of allocate() and deallocate().
  virtual void* allocate_host(std::size_t bytes) { return allocate(bytes); }
  virtual void deallocate_host(void* pointer) noexcept { deallocate(pointer); }
  virtual void copy_in(void* device, const void* host, std::size_t bytes) = 0;   // host reusable on return
  // The same, queued: `host` may be read until a Marker set afterwards has been waited for. At once on the host, and
  // on CUDA from memory that is not of allocate_host().
  virtual void copy_in_later(void* device, const void* host, std::size_t bytes) { copy_in(device, host, bytes); }
  virtual void copy_out(void* host, const void* device, std::size_t bytes) = 0;  // waits for the stream
  virtual void copy(void* to, const void* from, std::size_t bytes) = 0;          // device to device, queued
  virtual void zero(void* pointer, std::size_t bytes) = 0;                       // queued
  virtual void fill(DType dtype, void* pointer, std::size_t n, double value) = 0;  // queued
  virtual void synchronize() = 0;  // waits; reports an error of any launch before it

  // Records what `launches` queues. Null where recording gains nothing (the host): the caller then
  // keeps calling the launches itself. Nothing is executed while recording.
  virtual std::unique_ptr<Recording> record(const std::function<void()>& launches) = 0;

  // Names the launches between range_begin and range_end in profilers: an NVTX range of the domain
  // "gradflow". A name is registered once, before the launches it stands for, and valid as long as the
  // backend; equal names may share one. It is null on the host and, on CUDA, with GRADFLOW_NVTX=0 in the
  // environment; callers leave out the range then. Ranges nest.
  virtual RangeName register_range(const char* name) = 0;
  virtual void range_begin(RangeName name) noexcept = 0;  // not null
  virtual void range_end() noexcept = 0;

  // A profiler that was told to (ncu --profile-from-start off, nsys --capture-range=cudaProfilerApi)
  // collects what is queued between these two. Both wait for the stream. Nothing happens on the host.
  virtual void profile_start() = 0;
  virtual void profile_stop() = 0;

  virtual std::unique_ptr<Marker> make_marker() { return std::make_unique<Marker>(); }

  // Device events on CUDA, the steady clock on the host.
  virtual std::unique_ptr<Timer> make_timer() = 0;

  // From now on products and convolutions of f32 numbers may be prepared for tensor cores, which read them as TF32
  // (10 bits behind the point); info().precision says so. UserError on a device that has none.
  virtual void allow_tf32() = 0;

  // Equal descriptions share one prepared product.
  virtual std::shared_ptr<Matmul> prepare_matmul(const MatmulDesc& desc) = 0;
  virtual std::shared_ptr<Convolution> prepare_convolution(const ConvolutionDesc& desc) = 0;
  virtual std::unique_ptr<Update> prepare_update(const UpdateDesc& desc,
                                                 std::span<const UpdateSlice> slices) = 0;

  virtual void pointwise_forward(const PointwiseForward& a) = 0;
  virtual void pointwise_backward(const PointwiseBackward& a) = 0;
  virtual void bias_activation_forward(const BiasActivationForward& a) = 0;
  virtual void bias_activation_backward(const BiasActivationBackward& a) = 0;
  virtual void residual_forward(const ResidualForward& a) = 0;
  virtual void residual_backward(const ResidualBackward& a) = 0;
  virtual void scalar_forward(const ScalarForward& a) = 0;
  virtual void scalar_backward(const ScalarBackward& a) = 0;
  virtual void batch_norm_forward(const BatchNormForward& a) = 0;
  virtual void batch_norm_backward(const BatchNormBackward& a) = 0;
  virtual void max_pool_forward(const MaxPoolForward& a) = 0;
  virtual void max_pool_backward(const MaxPoolBackward& a) = 0;
  virtual void average_pool_forward(const AveragePoolForward& a) = 0;
  virtual void average_pool_backward(const AveragePoolBackward& a) = 0;
  virtual void shortcut_forward(const ShortcutForward& a) = 0;
  virtual void shortcut_backward(const ShortcutBackward& a) = 0;
  virtual void column_sum(const ColumnSum& a) = 0;
  virtual void softmax_cross_entropy(const SoftmaxCrossEntropy& a) = 0;
  virtual void stats(const StatsOf& a) = 0;
  virtual void difference_stats(const DifferenceStats& a) = 0;
  virtual void exponent_histogram(const ExponentHistogram& a) = 0;
  virtual void mark_alive(const MarkAlive& a) = 0;
  virtual void gather_batch(const GatherBatch& a) = 0;
  virtual void cast(const Cast& a) = 0;
  virtual void random_fill(const RandomFill& a) = 0;
  virtual void move_memory(const MoveMemory& a) = 0;
};

// The host backend. threads = 0: as many as OpenMP would use.
std::unique_ptr<Backend> open_cpu(int threads = 0);

// Number of usable CUDA devices; 0 with the reason in *reason (no module, no driver, driver too old...).
int cuda_device_count(std::string* reason);

// Opens cuda:ordinal; throws UserError "no CUDA device: <reason>" when that is not possible.
std::unique_ptr<Backend> open_cuda(int ordinal);

}  // namespace gradflow::kernels
