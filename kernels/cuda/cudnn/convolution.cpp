#include "kernels/cuda/convolution.h"

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "kernels/cuda/check.h"
#include "kernels/cuda/cudnn/algorithms.h"
#include "kernels/cuda/cudnn/descriptors.h"
#include "kernels/cuda/cudnn/staging.h"
#include "kernels/cuda/launchers.h"
#include "kernels/src/widened_convolution.h"

namespace gradflow::kernels::cuda {
namespace {

class Cudnn final : public ConvolutionLibrary {
 public:
  explicit Cudnn(DeviceQueue& queue) : queue_(queue) {
    queue_.activate();
    check_cudnn(cudnnCreate(&handle_), "cudnnCreate");
    const cudnnStatus_t status = cudnnSetStream(handle_, queue_.stream());
    if (status != CUDNN_STATUS_SUCCESS) static_cast<void>(cudnnDestroy(handle_));
    check_cudnn(status, "cudnnSetStream");
  }
  // As cuBLAS' handle (matmul.cpp): left alone where the process is ending and the runtime is gone.
  ~Cudnn() override {
    const bool ending = cudaSetDevice(queue_.ordinal()) == cudaErrorCudartUnloading;
    prepared_.clear();
    if (ending) return;
    static_cast<void>(cudnnDestroy(handle_));
    static_cast<void>(cudaGetLastError());
  }
  Cudnn(const Cudnn&) = delete;
  Cudnn& operator=(const Cudnn&) = delete;

  std::shared_ptr<Convolution> prepare(const ConvolutionDesc& desc, bool tf32) override;

  cudnnHandle_t handle() const noexcept { return handle_; }
  DeviceQueue& queue() const noexcept { return queue_; }

 private:
  std::shared_ptr<Convolution> make(const ConvolutionDesc& desc, bool tf32);

  DeviceQueue& queue_;
  cudnnHandle_t handle_ = nullptr;
  struct Prepared {
    ConvolutionDesc desc;
    bool tf32;
    std::shared_ptr<Convolution> convolution;
  };
  std::vector<Prepared> prepared_;
};

constexpr float kOne = 1.0f, kZero = 0.0f;
const float* beta(bool add) { return add ? &kOne : &kZero; }

class CudnnConvolution final : public Convolution {
 public:
  CudnnConvolution(Cudnn& library, const ConvolutionDesc& desc, bool tf32)
      : library_(library),
        d_(desc),
        of_(desc, tf32),
        any_math_(tf32 || desc.dtype == DType::bf16),
        x_count_(static_cast<std::size_t>(desc.batch * desc.height * desc.width * desc.channels)),
        y_count_(static_cast<std::size_t>(desc.batch * desc.out_height() * desc.out_width() * desc.outputs)),
        weights_count_(static_cast<std::size_t>(desc.outputs * desc.kernel_h * desc.kernel_w *
                                                (desc.channels / desc.groups))) {
    const cudnnHandle_t h = library.handle();
    forward_ = choose<cudnnConvolutionFwdAlgoPerf_t>(
        [&](int most, int* count, auto* found) {
          return cudnnGetConvolutionForwardAlgorithm_v7(h, of_.x, of_.w, of_.convolution, of_.y, most, count, found);
        },
        [&](auto algorithm, std::size_t* bytes) {
          return cudnnGetConvolutionForwardWorkspaceSize(h, of_.x, of_.w, of_.convolution, of_.y, algorithm, bytes);
        });
    data_ = choose<cudnnConvolutionBwdDataAlgoPerf_t>(
        [&](int most, int* count, auto* found) {
          return cudnnGetConvolutionBackwardDataAlgorithm_v7(h, of_.w, of_.y, of_.convolution, of_.x, most, count, found);
        },
        [&](auto algorithm, std::size_t* bytes) {
          return cudnnGetConvolutionBackwardDataWorkspaceSize(h, of_.w, of_.y, of_.convolution, of_.x, algorithm, bytes);
        });
    weights_ = choose<cudnnConvolutionBwdFilterAlgoPerf_t>(
        [&](int most, int* count, auto* found) {
          return cudnnGetConvolutionBackwardFilterAlgorithm_v7(h, of_.x, of_.y, of_.convolution, of_.w, most, count, found);
        },
        [&](auto algorithm, std::size_t* bytes) {
          return cudnnGetConvolutionBackwardFilterWorkspaceSize(h, of_.x, of_.y, of_.convolution, of_.w, algorithm, bytes);
        });
  }

  // Whether cuDNN has a deterministic algorithm for it; without, the calls below must not be made.
  bool has_forward() const noexcept { return forward_.has_value(); }
  bool has_backward_data() const noexcept { return data_.has_value(); }
  bool has_backward_weights() const noexcept { return weights_.has_value(); }

  std::size_t forward_workspace() const noexcept override { return forward_->workspace; }
  std::size_t backward_data_workspace() const noexcept override { return data_->workspace; }
  std::size_t backward_weights_workspace() const noexcept override { return gradient_room() + weights_->workspace; }
  std::string description(ConvolutionPass pass) const override {
    return pass == ConvolutionPass::forward ? text_of(*forward_) : pass == ConvolutionPass::backward_data ? text_of(*data_) : text_of(*weights_);
  }

  // With a bias, y starts as its rows and the convolution is added: one pass less than adding it afterwards.
  void forward(const void* x, const void* w, const void* bias, void* y, void* workspace) override {
    library_.queue().activate();
    if (d_.bias)
      broadcast_rows(library_.queue(), d_.dtype, static_cast<const float*>(bias), y, y_count_ / outputs(), outputs());
    of_.allow(forward_->math);
    Staging at(library_.queue(), {image(x, x_count_), weights(w), result(y, y_count_ * size_of(d_.dtype), d_.bias)});
    check_cudnn(cudnnConvolutionForward(library_.handle(), &kOne, of_.x, at[0], of_.w, at[1], of_.convolution,
                                        forward_->algorithm, workspace, forward_->workspace, beta(d_.bias), of_.y, at[2]),
                "a convolution");
    at.finish();
  }
  void backward_data(const void* dy, const void* w, void* dx, GradMode mode, void* workspace) override {
    if (mode == GradMode::none) return;
    library_.queue().activate();
    const bool add = mode == GradMode::accumulate;
    of_.allow(data_->math);
    Staging at(library_.queue(), {image(dy, y_count_), weights(w), result(dx, x_count_ * size_of(d_.dtype), add)});
    check_cudnn(cudnnConvolutionBackwardData(library_.handle(), &kOne, of_.w, at[1], of_.y, at[0], of_.convolution,
                                             data_->algorithm, workspace, data_->workspace, beta(add), of_.x, at[2]),
                "a convolution's gradient of its input");
    at.finish();
  }
  void backward_weights(const void* x, const void* dy, void* dw, GradMode mode, void* workspace) override {
    if (mode == GradMode::none) return;
    DeviceQueue& queue = library_.queue();
    queue.activate();
    const bool add = mode == GradMode::accumulate, bf16 = d_.dtype == DType::bf16;
    char* const room = static_cast<char*>(workspace);
    of_.allow(weights_->math);
    Staging at(queue, {image(x, x_count_), image(dy, y_count_),
                       result(bf16 ? workspace : dw, weights_count_ * size_of(d_.dtype), add && !bf16)});
    check_cudnn(cudnnConvolutionBackwardFilter(library_.handle(), &kOne, of_.x, at[0], of_.y, at[1], of_.convolution,
                                               weights_->algorithm, room + gradient_room(), weights_->workspace,
                                               beta(add && !bf16), of_.w, at[2]),
                "a convolution's gradient of its weights");
    at.finish();
    if (!bf16) return;
    void* const wide = add ? room + room_for(sizeof(std::uint16_t)) : dw;
    cuda::cast(queue,
               {.from = DType::bf16, .to = DType::f32, .n = weights_count_, .x = workspace, .y = wide});
    if (!add) return;
    cuda::pointwise_backward(queue, {.op = PointwiseId::identity,
                                     .dtype = DType::f32,
                                     .n = weights_count_,
                                     .saved = wide,
                                     .dy = wide,
                                     .dx = dw,
                                     .mode = GradMode::accumulate});
  }

 private:
  std::size_t outputs() const { return static_cast<std::size_t>(d_.outputs); }
  Operand image(const void* at, std::size_t count) const { return {.at = at, .bytes = count * size_of(d_.dtype)}; }
  Operand weights(const void* at) const { return image(at, weights_count_); }
  Operand result(void* at, std::size_t bytes, bool added_to) const {
    return {.at = at, .bytes = bytes, .read = added_to, .written = true};
  }

  // In front of cuDNN's workspace: the gradient of the weights in bf16, and widened.
  std::size_t room_for(std::size_t element) const { return (weights_count_ * element + 255) / 256 * 256; }
  std::size_t gradient_room() const {
    return d_.dtype == DType::bf16 ? room_for(sizeof(std::uint16_t)) + room_for(sizeof(float)) : 0;
  }

  template <class Performance, class Rank, class Ask>
  std::optional<Chosen<decltype(Performance::algo)>> choose(const Rank& rank, const Ask& ask) const {
    constexpr int kMost = 16;  // more than there are
    Performance found[kMost];
    int count = 0;
    of_.allow(of_.math);
    const cudnnStatus_t status = rank(kMost, &count, found);
    if (CUDNN_STATUS_CATEGORY(status) == CUDNN_STATUS_NOT_SUPPORTED) {
      count = 0;
    } else {
      check_cudnn(status, "ranking algorithms");
    }
    return choose_algorithm(std::span<const Performance>(found, static_cast<std::size_t>(count)), any_math_,
                            [&](auto algorithm, cudnnMathType_t math, std::size_t* bytes) {
                              of_.allow(math);
                              return ask(algorithm, bytes);
                            });
  }

  Cudnn& library_;
  ConvolutionDesc d_;
  ConvolutionDescriptors of_;
  bool any_math_;
  std::size_t x_count_, y_count_, weights_count_;  // elements
  std::optional<Chosen<cudnnConvolutionFwdAlgo_t>> forward_;
  std::optional<Chosen<cudnnConvolutionBwdDataAlgo_t>> data_;
  std::optional<Chosen<cudnnConvolutionBwdFilterAlgo_t>> weights_;
};

// Each pass by a convolution of its own.
class ConvolutionByPass final : public Convolution {
 public:
  ConvolutionByPass(std::shared_ptr<Convolution> forward, std::shared_ptr<Convolution> data, std::shared_ptr<Convolution> weights)
      : forward_(std::move(forward)), data_(std::move(data)), weights_(std::move(weights)) {}
  std::size_t forward_workspace() const noexcept override { return forward_->forward_workspace(); }
  std::size_t backward_data_workspace() const noexcept override { return data_->backward_data_workspace(); }
  std::size_t backward_weights_workspace() const noexcept override { return weights_->backward_weights_workspace(); }
  std::string description(ConvolutionPass pass) const override {
    return (pass == ConvolutionPass::forward ? forward_ : pass == ConvolutionPass::backward_data ? data_ : weights_)->description(pass);
  }
  void forward(const void* x, const void* w, const void* bias, void* y, void* workspace) override {
    forward_->forward(x, w, bias, y, workspace);
  }
  void backward_data(const void* dy, const void* w, void* dx, GradMode mode, void* workspace) override {
    data_->backward_data(dy, w, dx, mode, workspace);
  }
  void backward_weights(const void* x, const void* dy, void* dw, GradMode mode, void* workspace) override {
    weights_->backward_weights(x, dy, dw, mode, workspace);
  }

 private:
  std::shared_ptr<Convolution> forward_, data_, weights_;
};

// An empty batch, of which cuDNN makes no descriptor: the weights' gradient is zero.
class EmptyCudnnConvolution final : public Convolution {
 public:
  EmptyCudnnConvolution(DeviceQueue& queue, const ConvolutionDesc& d)
      : queue_(queue),
        bytes_(static_cast<std::size_t>(d.outputs * d.kernel_h * d.kernel_w * (d.channels / d.groups)) *
               sizeof(float)) {}
  std::size_t forward_workspace() const noexcept override { return 0; }
  std::size_t backward_data_workspace() const noexcept override { return 0; }
  std::size_t backward_weights_workspace() const noexcept override { return 0; }
  void forward(const void*, const void*, const void*, void*, void*) override {}
  void backward_data(const void*, const void*, void*, GradMode, void*) override {}
  void backward_weights(const void*, const void*, void* dw, GradMode mode, void*) override {
    if (mode != GradMode::overwrite) return;
    queue_.activate();
    check(cudaMemsetAsync(dw, 0, bytes_, queue_.stream()), "clearing an empty convolution's gradient");
  }

 private:
  DeviceQueue& queue_;
  std::size_t bytes_;
};

// bf16 passes that cuDNN does not have (few channels, groups: it depends on the device) run on widened numbers. TF32 has all
// the digits of bf16, so their products are as exact, and on tensor cores, too.
std::shared_ptr<Convolution> Cudnn::make(const ConvolutionDesc& desc, bool tf32) {
  const auto own = std::make_shared<CudnnConvolution>(*this, desc, tf32);
  if (own->has_forward() && own->has_backward_data() && own->has_backward_weights()) return own;
  if (desc.dtype != DType::bf16)
    throw UserError("cuDNN has no deterministic algorithm on this device for " + text_of(desc) + ": use --device cpu");
  ConvolutionDesc f32 = desc;
  f32.dtype = DType::f32;
  const std::shared_ptr<Convolution> wide =
      make_widened_convolution(desc, make(f32, true), [this](const Cast& c) { cuda::cast(queue_, c); });
  return std::make_shared<ConvolutionByPass>(own->has_forward() ? own : wide, own->has_backward_data() ? own : wide,
                                             own->has_backward_weights() ? own : wide);
}

std::shared_ptr<Convolution> Cudnn::prepare(const ConvolutionDesc& desc, bool tf32) {
  for (const Prepared& p : prepared_)
    if (p.desc == desc && p.tf32 == tf32) return p.convolution;
  queue_.activate();
  std::shared_ptr<Convolution> made;
  if (desc.batch == 0)
    made = std::make_shared<EmptyCudnnConvolution>(queue_, desc);
  else
    made = make(desc, tf32);
  return prepared_.emplace_back(desc, tf32, std::move(made)).convolution;
}

}  // namespace

std::unique_ptr<ConvolutionLibrary> open_convolution_library(DeviceQueue& queue) {
  return std::make_unique<Cudnn>(queue);
}

}  // namespace gradflow::kernels::cuda
