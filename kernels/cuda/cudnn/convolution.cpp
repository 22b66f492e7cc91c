#include "kernels/cuda/convolution.h"

#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "kernels/cuda/check.h"
#include "kernels/cuda/cudnn/algorithms.h"
#include "kernels/cuda/cudnn/descriptors.h"
#include "kernels/cuda/launchers.h"

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
  ~Cudnn() override {
    static_cast<void>(cudaSetDevice(queue_.ordinal()));
    prepared_.clear();
    static_cast<void>(cudnnDestroy(handle_));
    static_cast<void>(cudaGetLastError());
  }
  Cudnn(const Cudnn&) = delete;
  Cudnn& operator=(const Cudnn&) = delete;

  std::shared_ptr<Convolution> prepare(const ConvolutionDesc& desc, bool tf32) override;

  cudnnHandle_t handle() const noexcept { return handle_; }
  DeviceQueue& queue() const noexcept { return queue_; }

 private:
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
        weights_count_(static_cast<std::size_t>(desc.outputs * desc.kernel_h * desc.kernel_w *
                                                (desc.channels / desc.groups))) {
    const cudnnHandle_t h = library.handle();
    forward_ = choose<cudnnConvolutionFwdAlgoPerf_t>(
        "forward pass",
        [&](int most, int* count, auto* found) {
          return cudnnGetConvolutionForwardAlgorithm_v7(h, of_.x, of_.w, of_.convolution, of_.y, most, count, found);
        },
        [&](auto algorithm, std::size_t* bytes) {
          return cudnnGetConvolutionForwardWorkspaceSize(h, of_.x, of_.w, of_.convolution, of_.y, algorithm, bytes);
        });
    data_ = choose<cudnnConvolutionBwdDataAlgoPerf_t>(
        "gradient of the input",
        [&](int most, int* count, auto* found) {
          return cudnnGetConvolutionBackwardDataAlgorithm_v7(h, of_.w, of_.y, of_.convolution, of_.x, most, count, found);
        },
        [&](auto algorithm, std::size_t* bytes) {
          return cudnnGetConvolutionBackwardDataWorkspaceSize(h, of_.w, of_.y, of_.convolution, of_.x, algorithm, bytes);
        });
    weights_ = choose<cudnnConvolutionBwdFilterAlgoPerf_t>(
        "gradient of the weights",
        [&](int most, int* count, auto* found) {
          return cudnnGetConvolutionBackwardFilterAlgorithm_v7(h, of_.x, of_.y, of_.convolution, of_.w, most, count, found);
        },
        [&](auto algorithm, std::size_t* bytes) {
          return cudnnGetConvolutionBackwardFilterWorkspaceSize(h, of_.x, of_.y, of_.convolution, of_.w, algorithm, bytes);
        });
  }

  std::size_t forward_workspace() const noexcept override { return forward_.workspace; }
  std::size_t backward_data_workspace() const noexcept override { return data_.workspace; }
  std::size_t backward_weights_workspace() const noexcept override {
    return gradient_room() + weights_.workspace;
  }

  // With a bias, y starts as its rows and the convolution is added: one pass less than adding it afterwards.
  void forward(const void* x, const void* w, const void* bias, void* y, void* workspace) override {
    library_.queue().activate();
    if (d_.bias)
      broadcast_rows(library_.queue(), d_.dtype, static_cast<const float*>(bias), y,
                     static_cast<std::size_t>(d_.batch * d_.out_height() * d_.out_width()),
                     static_cast<std::size_t>(d_.outputs));
    check_cudnn(
        cudnnConvolutionForward(library_.handle(), &kOne, of_.x, x, of_.w, w, of_.convolution,
                                forward_.algorithm, workspace, forward_.workspace, beta(d_.bias), of_.y, y),
        "a convolution");
  }
  void backward_data(const void* dy, const void* w, void* dx, GradMode mode, void* workspace) override {
    if (mode == GradMode::none) return;
    library_.queue().activate();
    check_cudnn(cudnnConvolutionBackwardData(library_.handle(), &kOne, of_.w, w, of_.y, dy, of_.convolution,
                                             data_.algorithm, workspace, data_.workspace,
                                             beta(mode == GradMode::accumulate), of_.x, dx),
                "a convolution's gradient of its input");
  }
  void backward_weights(const void* x, const void* dy, void* dw, GradMode mode, void* workspace) override {
    if (mode == GradMode::none) return;
    DeviceQueue& queue = library_.queue();
    queue.activate();
    const bool add = mode == GradMode::accumulate, bf16 = d_.dtype == DType::bf16;
    char* const room = static_cast<char*>(workspace);
    check_cudnn(cudnnConvolutionBackwardFilter(library_.handle(), &kOne, of_.x, x, of_.y, dy, of_.convolution,
                                               weights_.algorithm, room + gradient_room(), weights_.workspace,
                                               beta(add && !bf16), of_.w, bf16 ? workspace : dw),
                "a convolution's gradient of its weights");
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
  // In front of cuDNN's workspace: the gradient of the weights in bf16, and widened.
  std::size_t room_for(std::size_t element) const { return (weights_count_ * element + 255) / 256 * 256; }
  std::size_t gradient_room() const {
    return d_.dtype == DType::bf16 ? room_for(sizeof(std::uint16_t)) + room_for(sizeof(float)) : 0;
  }

  template <class Performance, class Rank, class Ask>
  Chosen<decltype(Performance::algo)> choose(const char* pass, const Rank& rank, const Ask& ask) const {
    constexpr int kMost = 16;  // more than there are
    Performance found[kMost];
    int count = 0;
    const cudnnStatus_t status = rank(kMost, &count, found);
    if (CUDNN_STATUS_CATEGORY(status) == CUDNN_STATUS_NOT_SUPPORTED) {
      count = 0;
    } else {
      check_cudnn(status, "ranking algorithms");
    }
    const std::span<const Performance> ranking(found, static_cast<std::size_t>(count));
    if (const auto chosen = choose_algorithm(ranking, any_math_, ask)) return *chosen;
    throw UserError("cuDNN has no deterministic algorithm on this device for the " + std::string(pass) + " of " +
                    text_of(d_) + ": use --device cpu" + (d_.dtype == DType::bf16 ? " or --dtype f32" : ""));
  }

  Cudnn& library_;
  ConvolutionDesc d_;
  ConvolutionDescriptors of_;
  bool any_math_;
  std::size_t weights_count_;
  Chosen<cudnnConvolutionFwdAlgo_t> forward_;
  Chosen<cudnnConvolutionBwdDataAlgo_t> data_;
  Chosen<cudnnConvolutionBwdFilterAlgo_t> weights_;
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

std::shared_ptr<Convolution> Cudnn::prepare(const ConvolutionDesc& desc, bool tf32) {
  for (const Prepared& p : prepared_)
    if (p.desc == desc && p.tf32 == tf32) return p.convolution;
  queue_.activate();
  std::shared_ptr<Convolution> made;
  if (desc.batch == 0)
    made = std::make_shared<EmptyCudnnConvolution>(queue_, desc);
  else
    made = std::make_shared<CudnnConvolution>(*this, desc, tf32);
  return prepared_.emplace_back(desc, tf32, std::move(made)).convolution;
}

}  // namespace

std::unique_ptr<ConvolutionLibrary> open_convolution_library(DeviceQueue& queue) {
  return std::make_unique<Cudnn>(queue);
}

}  // namespace gradflow::kernels::cuda
