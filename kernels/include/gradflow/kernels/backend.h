// Backend: the contract between the engine and a device's arithmetic.
//
// One abstract class, two implementations: the host (kernels/cpu, always there) and CUDA
// (kernels/cuda, a shared module opened on demand). It knows pointers and sizes, no layers, no graph.
//
// Rules that hold for every call below, unless its comment says otherwise:
//   * Pointers are device pointers of this backend (host pointers on the host backend), contiguous,
//     row-major, channels last. They may have any alignment of their element type.
//   * Lengths may be 0; then nothing is read or written (statistics stay untouched).
//   * Work is queued on the backend's one stream in call order; the host backend runs it at once.
//   * Arguments do not alias unless the comment says "may alias".
//   * dtype is f32, bf16 or, on the host backend, f64; anything else throws UserError. Batch norm, convolution,
//     pooling and optimizer updates know no bf16.
//   * Storage in dtype, arithmetic in f32 for f32 and bf16, in f64 for f64; never fast-math; denormals stay.
//     Parameters, their gradients, means and moments of a bf16 call are f32: a bias, the sum of columns.
//   * A bf16 result is the f32 result of the widened inputs, rounded once, to nearest even; NaN stays NaN.
//     Statistics of it are of the stored, rounded values; bf16 has f32's range, so "denormal" is the same.
//   * Equal inputs give equal bits for the same backend, build and thread count; no float atomics.
//   * Passing statistics sinks (`*_stats`, may be null) changes no bit of any other output. A sink
//     points to one Stats in device memory and is ADDED to.
//   * A backend is used by one thread at a time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "gradflow/kernels/dtype.h"
#include "gradflow/kernels/pointwise_ops.h"
#include "gradflow/kernels/stats.h"

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

// ---------------------------------------------------------------------------------- matrix product
// y[m,n] = op(a) * op(b) (+ bias[n])  or, with accumulate, y += op(a) * op(b).
// op(a) is m x k: a is stored [m,k], or [k,m] if transpose_a. op(b) is k x n: stored [k,n], or [n,k]
// if transpose_b. bias and accumulate exclude each other. m, n or k may be 0 (k = 0 gives zeros or
// the bias). y aliases nothing. With bf16 operands the bias is f32 and sums are f32; where y is bf16, a backend
// may round the bias to bf16 before adding it.
struct MatmulDesc {
  DType dtype = DType::f32;
  std::int64_t m = 0, n = 0, k = 0;
  bool transpose_a = false, transpose_b = false;
  bool accumulate = false;
  bool bias = false;
  DType y_dtype = dtype;  // bf16 operands may give a bf16 or an f32 result; others one of their own type
  bool operator==(const MatmulDesc&) const = default;
};

// A matrix product prepared once and run often; stateless between runs, valid while its backend is.
class Matmul {
 public:
  virtual ~Matmul() = default;
  virtual std::size_t workspace_bytes() const noexcept = 0;
  // bias is null unless the description asked for one; workspace may be null if 0 bytes are needed.
  virtual void run(const void* a, const void* b, const void* bias, void* y, void* workspace) = 0;
};

// ------------------------------------------------------------------------------------- convolution
// Cross-correlation, as every framework's "convolution": with i = p*stride_h + r - pad_h and
// j = q*stride_w + s - pad_w, terms outside the image left out,
//   y[b,p,q,o] (+)= sum over r, s, c of x[b,i,j, g*C/G + c] * w[o,r,s,c]   (+ bias[o]),  g = o / (O/G).
// x[batch, height, width, channels C], y[batch, out_height(), out_width(), outputs O], groups G.
// Weights lie as [O, kernel_h, kernel_w, C/G] (cuDNN's KRSC). PyTorch's [O, C/G, kernel_h, kernel_w] becomes
// this by permute(0, 2, 3, 1). The batch may be 0.
struct ConvolutionDesc {
  DType dtype = DType::f32;
  std::int64_t batch = 0, height = 0, width = 0, channels = 0;
  std::int64_t outputs = 0;
  std::int64_t kernel_h = 1, kernel_w = 1;
  std::int64_t stride_h = 1, stride_w = 1;
  std::int64_t pad_h = 0, pad_w = 0;  // zeros on each side
  std::int64_t groups = 1;            // divides channels and outputs
  bool bias = false;

  // Of the output; at most 0 where the window does not fit.
  constexpr std::int64_t out_height() const noexcept { return extent(height, pad_h, kernel_h, stride_h); }
  constexpr std::int64_t out_width() const noexcept { return extent(width, pad_w, kernel_w, stride_w); }
  static constexpr std::int64_t extent(std::int64_t in, std::int64_t pad, std::int64_t window,
                                       std::int64_t stride) noexcept {
    return in + 2 * pad < window ? 0 : (in + 2 * pad - window) / stride + 1;
  }
  bool operator==(const ConvolutionDesc&) const = default;
};

// InternalError unless all extents make sense together (layers have told the user long before).
void require_convolution(const ConvolutionDesc& desc);

// A convolution prepared once and run often, forward and both backward passes; stateless between runs, valid
// while its backend is. `workspace` has at least *_workspace() bytes (null if 0) and belongs to the call.
// A bias gradient is a ColumnSum of dy.
class Convolution {
 public:
  virtual ~Convolution() = default;
  virtual std::size_t forward_workspace() const noexcept = 0;
  virtual std::size_t backward_data_workspace() const noexcept = 0;
  virtual std::size_t backward_weights_workspace() const noexcept = 0;
  // bias is null unless the description asked for one.
  virtual void forward(const void* x, const void* w, const void* bias, void* y, void* workspace) = 0;
  virtual void backward_data(const void* dy, const void* w, void* dx, GradMode mode, void* workspace) = 0;
  virtual void backward_weights(const void* x, const void* dy, void* dw, GradMode mode, void* workspace) = 0;
};

// ----------------------------------------------------------------------------------------- pooling
// Windows as in a convolution, per channel; x[batch, height, width, channels].
struct PoolWindow {
  std::int64_t batch = 0, height = 0, width = 0, channels = 0;
  std::int64_t kernel_h = 1, kernel_w = 1, stride_h = 1, stride_w = 1;
  std::int64_t pad_h = 0, pad_w = 0;  // at most half a window, so that no window lies in the padding alone

  constexpr std::int64_t out_height() const noexcept {
    return ConvolutionDesc::extent(height, pad_h, kernel_h, stride_h);
  }
  constexpr std::int64_t out_width() const noexcept {
    return ConvolutionDesc::extent(width, pad_w, kernel_w, stride_w);
  }
};

// y = the largest x of each window; padding never wins. As in PyTorch: of equal ones the first in row-major
// order wins; a NaN beats everything (the last one, if there are several).
struct MaxPoolForward {
  DType dtype = DType::f32;
  PoolWindow window;
  const void* x = nullptr;
  void* y = nullptr;
  std::int32_t* winners = nullptr;  // i * width + j of each output's winner, as y; null: not wanted
};

struct MaxPoolBackward {  // dx (=|+=) the sum of dy over the windows that x won
  DType dtype = DType::f32;
  PoolWindow window;
  const std::int32_t* winners = nullptr;
  const void* dy = nullptr;
  void* dx = nullptr;
  GradMode mode = GradMode::overwrite;
};

// y = sum over the window / (kernel_h * kernel_w): padding counts as zeros, PyTorch's default. With the
// window as large as the image and no padding this is global average pooling.
struct AveragePoolForward {
  DType dtype = DType::f32;
  PoolWindow window;
  const void* x = nullptr;
  void* y = nullptr;
};

struct AveragePoolBackward {
  DType dtype = DType::f32;
  PoolWindow window;
  const void* dy = nullptr;
  void* dx = nullptr;
  GradMode mode = GradMode::overwrite;
};

// The parameter-free shortcut ("option A") of He et al. 2015: every stride-th pixel, new channels zero.
//   y[b, i, j, c] = c < channels ? x[b, i*stride, j*stride, c] : 0
// x[batch, height, width, channels], y[batch, ceil(height/stride), ceil(width/stride), outputs >= channels].
struct ShortcutShape {
  std::int64_t batch = 0, height = 0, width = 0, channels = 0, outputs = 0, stride = 1;
  constexpr std::int64_t out_height() const noexcept { return (height + stride - 1) / stride; }
  constexpr std::int64_t out_width() const noexcept { return (width + stride - 1) / stride; }
};

struct ShortcutForward {
  DType dtype = DType::f32;
  ShortcutShape shape;
  const void* x = nullptr;
  void* y = nullptr;
};

struct ShortcutBackward {  // dx (=|+=) dy where x was taken, 0 elsewhere
  DType dtype = DType::f32;
  ShortcutShape shape;
  const void* dy = nullptr;
  void* dx = nullptr;
  GradMode mode = GradMode::overwrite;
};

// --------------------------------------------------------------------------------- pointwise layers
struct PointwiseForward {  // y = op(x); y may alias x
  PointwiseId op{};
  DType dtype = DType::f32;
  std::size_t n = 0;
  const void* x = nullptr;
  void* y = nullptr;
  Stats* x_stats = nullptr;
  Stats* y_stats = nullptr;  // also counts saturated outputs
};

struct PointwiseBackward {  // dx = or += op'(.) * dy; with overwrite, dx may alias dy
  PointwiseId op{};
  DType dtype = DType::f32;
  std::size_t n = 0;
  const void* saved = nullptr;  // x or y, as PointwiseInfo::saves says
  const void* dy = nullptr;
  void* dx = nullptr;
  GradMode mode = GradMode::overwrite;
  Stats* dy_stats = nullptr;
  Stats* dx_stats = nullptr;
};

// Gates of a residual addition, four floats in device memory. 1 is the ordinary network; 0 removes a
// path. Forward and backward are separate so that a path can be cut in one direction only.
struct Gates {
  float forward_skip = 1, forward_branch = 1, backward_skip = 1, backward_branch = 1;
};

struct ResidualForward {  // y = forward_skip * skip + (forward_branch * scale) * branch
  DType dtype = DType::f32;
  std::size_t n = 0;
  const void* skip = nullptr;
  const void* branch = nullptr;
  void* y = nullptr;  // may alias skip or branch
  const Gates* gates = nullptr;
  double scale = 1;
  Stats* y_stats = nullptr;               // of y, behind op
  PointwiseId op = PointwiseId::identity;  // y = op(the sum); one that saves its output, else InternalError
};

struct ResidualBackward {  // dskip (=|+=) backward_skip * dy; dbranch (=|+=) (backward_branch*scale) * dy
  DType dtype = DType::f32;
  std::size_t n = 0;
  const void* dy = nullptr;
  void* dskip = nullptr;  // may alias dy (with overwrite); dskip and dbranch differ
  GradMode skip_mode = GradMode::overwrite;
  void* dbranch = nullptr;  // may alias dy (with overwrite) if dskip does not
  GradMode branch_mode = GradMode::overwrite;
  const Gates* gates = nullptr;
  double scale = 1;
  Stats* dy_stats = nullptr;
  PointwiseId op = PointwiseId::identity;  // with another, op'(y)*dy takes the place of dy above; it is not rounded
  const void* y = nullptr;                // what forward wrote; not read for identity
};

// A bias for each column and an activation, in one pass: y = op(x + bias[column]), the sum not rounded to dtype.
struct BiasActivationForward {
  PointwiseId op{};
  DType dtype = DType::f32;
  std::size_t rows = 0, columns = 0;
  const void* x = nullptr;
  const void* bias = nullptr;  // [columns], f32 for bf16
  void* y = nullptr;           // may alias x where op saves its output
};

// dx = op'(.) * dy and, in the same pass, dbias[column] (=|+=) the sum over rows of dx, as stored.
struct BiasActivationBackward {
  PointwiseId op{};
  DType dtype = DType::f32;
  std::size_t rows = 0, columns = 0;
  const void* saved = nullptr;  // y, or the x in front of the bias, as PointwiseInfo::saves says
  const void* bias = nullptr;   // read where op saves its input
  const void* dy = nullptr;
  void* dx = nullptr;           // may alias dy
  void* dbias = nullptr;        // [columns], f32 for bf16
  GradMode bias_mode = GradMode::overwrite;
};

// ------------------------------------------------------------------------------ batch normalization
// Over the last dimension of x[rows, channels]; convolutions pass rows = N*H*W.
//   n = scale * (x - mean) * inv_std + shift,  inv_std = 1/sqrt(var + epsilon), var biased.
// Means and variances are accumulated in f64, around a value of the same channel (the first row's, or a mean
// found before): never E[x^2] - E[x]^2. f64 input takes two passes, f32 input, whose 24 bits leave f64 29 to
// spare, one.
//
// What follows in a network can be part of the same passes, with the same bits as separate launches:
//   y = op(n)                                                                          if skip is null
//   y = op(forward_skip * skip + (forward_branch * branch_scale) * n)                   otherwise
// op is one that saves its output, identity for none; gates and branch_scale as in ResidualForward.
struct BatchNormForward {
  DType dtype = DType::f32;
  std::size_t rows = 0, channels = 0;
  const void* x = nullptr;
  void* y = nullptr;                 // may alias x only when nobody reads x later (backward reads x)
  const void* scale = nullptr;       // [channels]; null means 1
  const void* shift = nullptr;       // [channels]; null means 0
  void* mean = nullptr;              // [channels] out in training (saved for backward)
  void* inv_std = nullptr;           // [channels] out in training
  void* running_mean = nullptr;      // [channels] updated in training, read otherwise
  void* running_variance = nullptr;  // same; the unbiased variance is what is averaged in
  double momentum = 0.1;             // running = (1 - momentum) * running + momentum * batch
  double epsilon = 1e-5;
  bool training = true;
  PointwiseId op = PointwiseId::identity;
  const void* skip = nullptr;        // [rows, channels]; y may alias it
  const Gates* gates = nullptr;      // with skip
  double branch_scale = 1;
};

// Training mode: the batch statistics depend on x. With d = op'(y) * dy (dy itself for identity), the gradient
// at n is d, or with a skip (backward_branch * branch_scale) * d, while dskip (=|+=) backward_skip * d.
struct BatchNormBackward {
  DType dtype = DType::f32;
  std::size_t rows = 0, channels = 0;
  const void* x = nullptr;
  const void* dy = nullptr;
  const void* scale = nullptr;
  const void* mean = nullptr;
  const void* inv_std = nullptr;
  void* dx = nullptr;  // may alias dy with overwrite, unless dskip does
  GradMode dx_mode = GradMode::overwrite;
  void* dscale = nullptr;  // null if there is no affine part
  void* dshift = nullptr;
  GradMode parameter_mode = GradMode::overwrite;
  PointwiseId op = PointwiseId::identity;
  const void* y = nullptr;       // what forward wrote; not read for identity
  bool has_skip = false;
  void* dskip = nullptr;         // may alias dy with overwrite, unless dx does
  GradMode skip_mode = GradMode::none;
  const Gates* gates = nullptr;  // with has_skip
  double branch_scale = 1;
};

// --------------------------------------------------------------------------- reductions and the loss
struct ColumnSum {  // y[columns] (=|+=) sum over rows of x[rows, columns]; bias gradients. y is f32 for bf16 x
  DType dtype = DType::f32;
  std::size_t rows = 0, columns = 0;
  const void* x = nullptr;
  void* y = nullptr;
  GradMode mode = GradMode::overwrite;
};

// In device memory, ADDED to by every loss launch and by nothing else.
struct LossResult {
  double loss_sum = 0;         // sum over rows of -log softmax(logits)[label]
  std::uint64_t rows = 0;
  std::uint64_t correct = 0;   // rows whose largest logit is the label's (ties: lowest index wins;
                               // a row holding NaN is never correct)
};

struct SoftmaxCrossEntropy {  // stable: log-sum-exp with the row maximum taken out
  DType dtype = DType::f32;
  std::size_t rows = 0, classes = 0;
  const void* logits = nullptr;         // [rows, classes]
  const std::int32_t* labels = nullptr; // [rows], each in [0, classes)
  void* dlogits = nullptr;              // (softmax - onehot)/rows, the gradient of the mean loss; null
                                        // in evaluation. May alias logits.
  LossResult* result = nullptr;
};

// ------------------------------------------------------------------------------------------- probes
struct StatsOf {  // adds the statistics of x to *out; `op` decides what counts as saturated
  DType dtype = DType::f32;
  std::size_t n = 0;
  const void* x = nullptr;
  PointwiseId op = PointwiseId::identity;
  Stats* out = nullptr;
};

struct DifferenceStats {  // statistics of (a - b), formed in f64; *dot += sum b*(a - b). a = total
  DType dtype = DType::f32;  // gradient, b = the part that came by the skip: splits a residual gradient
  std::size_t n = 0;
  const void* a = nullptr;
  const void* b = nullptr;
  Stats* difference = nullptr;
  double* dot = nullptr;
};

struct ExponentHistogram {  // bins[kExponentBins] += counts
  DType dtype = DType::f32;
  std::size_t n = 0;
  const void* x = nullptr;
  std::uint64_t* bins = nullptr;
};

struct MarkAlive {  // alive[c] |= any row of y[rows, columns] with y[r,c] > 0 (NaN counts as alive)
  DType dtype = DType::f32;
  std::size_t rows = 0, columns = 0;
  const void* y = nullptr;
  std::uint8_t* alive = nullptr;
};

// ------------------------------------------------------------------------------------------- batches
struct GatherBatch {  // x[b,f] = (images[indices[b],f]/255 - mean) * inv_std; y[b] = labels[indices[b]]
  DType dtype = DType::f32;
  std::size_t batch = 0, features = 0;
  const std::uint8_t* images = nullptr;
  const std::uint8_t* labels = nullptr;
  const std::int32_t* indices = nullptr;
  float mean = 0, inv_std = 1;
  void* x = nullptr;
  std::int32_t* y = nullptr;

  // Images as [height, width, channels], features in all: then each sample may be shifted and mirrored,
  //   x[b, i, j, c] = the value above at image pixel (i + dy, j' + dx, c), j' = flip ? width - 1 - j : j,
  // and 0 where that lies outside: as if the image had been padded after the mean was taken from it (He et al.
  // 2015: dy and dx in [-4, 4], flip in {0, 1}).
  std::size_t height = 0, width = 0, channels = 0;  // channels = 0: no augmentation
  const std::int8_t* crops = nullptr;               // [batch, 3]: dy, dx, flip; null: none, whatever the rest
  const float* pixel_mean = nullptr;                // [features], takes the place of `mean` for each feature
};

// y[i] = x[i] in another type: f32 <-> bf16, on the host also from and to f64 (to bf16 by way of f32). Rounded to
// nearest even; aliases nothing. Equal types are an InternalError.
struct Cast {
  DType from = DType::f32, to = DType::bf16;
  std::size_t n = 0;
  const void* x = nullptr;
  void* y = nullptr;
};

// The numbers of RandomStream(seed, purpose) (engine/random.h), positions first .. first + n - 1, the same bits on
// every backend: computed in f64 and rounded to dtype (bf16 by way of f32).
enum class Distribution : std::uint8_t {
  uniform,  // x[i] = a + (b - a) * uniform(first + i)
  normal,   // x[i] = a + b * normal(first + i)
};
struct RandomFill {
  DType dtype = DType::f32;
  std::size_t n = 0;
  void* x = nullptr;
  Distribution distribution = Distribution::uniform;
  double a = 0, b = 1;
  std::uint64_t seed = 0, purpose = 0;  // RandomStream::seed(), purpose()
  std::uint64_t first = 0;
};

// ----------------------------------------------------------------------------------- the yardstick
enum class Traffic : std::uint8_t {
  read,  // y[0] = NaN if a NaN is among a[n]; else nothing is written
  copy,  // y = a
  add,   // y = a + b
};

// Moves f32 numbers and does next to nothing with them: what other operations over as many bytes are
// measured against. Constant fills are the yardstick of writing.
struct MoveMemory {
  Traffic kind = Traffic::copy;
  std::size_t n = 0;
  const float* a = nullptr;
  const float* b = nullptr;  // add alone
  float* y = nullptr;        // may alias a or b, but not in `read`
};

// ------------------------------------------------------------------------------------------ optimizers
// Lies in device memory, so that a recorded step sees new values without being recorded again.
struct OptimizerScalars {
  float learning_rate = 0;
  float weight_decay = 0;
  float momentum = 0;         // SGD
  float beta1 = 0, beta2 = 0; // Adam, AdamW
  float epsilon = 0;
  float bias_correction1 = 1; // 1 - beta1^t
  float bias_correction2 = 1; // 1 - beta2^t
};

enum class OptimizerKind : std::uint8_t {
  sgd,       // g = dw + wd*w; m = momentum*m + g; w -= lr*m          (first_moment null if momentum 0)
  nesterov,  // g, m as above; w -= lr*(g + momentum*m)
  adam,      // g = dw + wd*w; Kingma & Ba 2015 with bias correction; w -= lr*mhat/(sqrt(vhat)+eps)
  adamw,     // w -= lr*wd*w first, decay kept out of g; Loshchilov & Hutter 2019
};

struct UpdateSlice {  // one parameter tensor
  std::size_t n = 0;
  void* w = nullptr;
  const void* dw = nullptr;
  void* first_moment = nullptr;   // momentum buffer or m; zeros at the start
  void* second_moment = nullptr;  // Adam's v
  bool decay = true;              // false: weight_decay is taken as 0 for this tensor
  Stats* w_stats = nullptr;       // of w before the update
  Stats* dw_stats = nullptr;
  Stats* update_stats = nullptr;  // of w_after - w_before (what was stored, rounding included)
  void* w_bf16 = nullptr;         // [n] bf16 copy of w_after for the next step, written in the same pass; w,
                                  // dw and the moments stay f32 (f64): w is the master copy
};

struct UpdateDesc {
  OptimizerKind kind = OptimizerKind::sgd;
  DType dtype = DType::f32;
  const OptimizerScalars* scalars = nullptr;
};

// Updates of one or many tensors, prepared once (one launch on CUDA), run every step.
class Update {
 public:
  virtual ~Update() = default;
  virtual void run() = 0;
};

// A sequence of launches recorded once and replayed (a CUDA graph).
class Recording {
 public:
  virtual ~Recording() = default;
  virtual void replay() = 0;
};

// The time between two points of the backend's stream.
class Timer {
 public:
  virtual ~Timer() = default;
  virtual void start() = 0;      // queued
  virtual void stop() = 0;       // queued
  virtual double seconds() = 0;  // waits for the last stop(); throws InternalError without a start() before it
};

// A name for launches in profilers; null where names are not asked for.
using RangeName = const void*;

// --------------------------------------------------------------------------------------- the backend
class Backend {
 public:
  virtual ~Backend() = default;
  virtual const DeviceInfo& info() const noexcept = 0;
  virtual bool supports(DType dtype) const noexcept = 0;
  virtual bool is_host() const noexcept = 0;  // device pointers may be read by the CPU

  // Memory. allocate: 256-byte aligned, uninitialized; throws UserError naming the bytes asked for and
  // available when there is not enough. allocate(0) returns null; deallocate(null) does nothing.
  virtual void* allocate(std::size_t bytes) = 0;
  virtual void deallocate(void* pointer) noexcept = 0;
  virtual void copy_in(void* device, const void* host, std::size_t bytes) = 0;   // host reusable on return
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

  // Device events on CUDA, the steady clock on the host.
  virtual std::unique_ptr<Timer> make_timer() = 0;

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

// What the CUDA module exports (extern "C"); internal to the loader, listed here because both sides
// must agree. `error` receives a NUL-terminated reason. Version changes whenever this header does.
inline constexpr int kBackendInterfaceVersion = 5;
using CudaCountFunction = int (*)(int interface_version, char* error, std::size_t error_size);
using CudaOpenFunction = Backend* (*)(int interface_version, int ordinal, char* error,
                                      std::size_t error_size);
inline constexpr const char* kCudaCountSymbol = "gradflow_cuda_device_count";
inline constexpr const char* kCudaOpenSymbol = "gradflow_cuda_open";

}  // namespace gradflow::kernels
