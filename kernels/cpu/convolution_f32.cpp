// Convolutions in f32 and bf16 by oneDNN, NHWC in and out.
//
// In bf16 images and weights are bf16, sums, the bias and the gradient of the weights f32. oneDNN computes so
// where the machine has AVX-512 (natively with AVX512_BF16, which takes denormals as zero; else by widening);
// elsewhere the operands are widened (../src/widened_convolution.h).
//
// Weights go into the blocked layout that the chosen kernel wants, at the start of each pass, in workspace:
// they are small (1 MB for the whole of ResNet-20), and kernels that read them in another layout are several
// times slower. Only direct algorithms: Winograd's error is larger and its gain, on these shapes, small.
//
// oneDNN's gradient of the input overwrites. Where it is to be added (where a residual block begins) it is
// made in workspace and added from there: 0.4 ms of 6 for the largest layers of ResNet-20. In bf16 it is
// rounded there.
#include <algorithm>
#include <oneapi/dnnl/dnnl.hpp>
#include <string>

#include "../src/widened_convolution.h"
#include "functions.h"
#include "gradflow/kernels/error.h"
#include "thread_count.h"

namespace gradflow::kernels::cpu {
namespace {

using dnnl::memory;
using Dims = memory::dims;

constexpr std::size_t kAlign = 64;
std::size_t aligned(std::size_t bytes) { return (bytes + kAlign - 1) / kAlign * kAlign; }

// One oneDNN primitive with the memory objects of its arguments made beforehand: run() sets addresses only.
class Call {
 public:
  Call() = default;
  Call(const dnnl::primitive& primitive, const dnnl::stream& stream)
      : primitive_(primitive), stream_(stream) {}

  void add(int kind, const memory::desc& desc, const dnnl::engine& engine) {
    memories_[used_] = memory(desc, engine, DNNL_MEMORY_NONE);
    args_[used_] = {kind, memories_[used_].get()};
    ++used_;
  }
  explicit operator bool() const { return used_ > 0; }  // is there one?

  // In the order in which the arguments were added.
  void run(std::initializer_list<const void*> pointers) {
    dnnl_status_t status = dnnl_success;
    int i = 0;
    for (const void* p : pointers) {
      if (i == used_ || status != dnnl_success) break;
      status = dnnl_memory_set_data_handle_v2(args_[i++].memory, const_cast<void*>(p), stream_.get());
    }
    if (status == dnnl_success)
      status = dnnl_primitive_execute(primitive_.get(), stream_.get(), used_, args_);
    if (status != dnnl_success) throw InternalError("oneDNN failed to run a convolution");
  }

 private:
  static constexpr int kMost = 5;
  dnnl::primitive primitive_;
  dnnl::stream stream_;
  memory memories_[kMost];
  dnnl_exec_arg_t args_[kMost] = {};
  int used_ = 0;
};

// A pass: the convolution itself, and a reordering of weights before it (or of their gradient behind it) if
// the kernel wants another layout. In workspace: weights, scratch memory, a result to be added.
struct Pass {
  Call convolution, reorder;
  std::size_t weights_bytes = 0, scratch_bytes = 0, result_bytes = 0;
  std::string implementation;  // oneDNN's name of it

  std::size_t workspace() const { return weights_bytes + scratch_bytes + result_bytes; }
  void* weights(void* workspace) const { return workspace; }
  void* scratch(void* workspace) const { return static_cast<char*>(workspace) + weights_bytes; }
  void* result(void* workspace) const {
    return static_cast<char*>(workspace) + weights_bytes + scratch_bytes;
  }
};

class VendorConvolutionPasses final : public Convolution {
 public:
  VendorConvolutionPasses(const Context& context, const ConvolutionDesc& d, const dnnl::engine& engine,
                          const dnnl::stream& stream)
      : context_(context),
        d_(d),
        stored_(d.dtype == DType::bf16 ? memory::data_type::bf16 : memory::data_type::f32),
        engine_(engine),
        stream_(stream) {
    x_ = image(d.height, d.width, d.channels);
    y_ = image(d.out_height(), d.out_width(), d.outputs);
    make_forward();
    make_backward_data();
    make_backward_weights();
  }

  std::size_t forward_workspace() const noexcept override { return forward_.workspace(); }
  std::size_t backward_data_workspace() const noexcept override { return data_.workspace(); }
  std::size_t backward_weights_workspace() const noexcept override {
    return std::max(weights_.workspace(), weights_add_.workspace());
  }

  std::string description(ConvolutionPass pass) const override {
    const Pass& p = pass == ConvolutionPass::forward ? forward_ : pass == ConvolutionPass::backward_data ? data_ : weights_;
    return p.implementation + (p.reorder ? ", weights reordered" : "");
  }

  void forward(const void* x, const void* w, const void* bias, void* y, void* workspace) override {
    const ThreadCount count(context_.threads);
    forward_.convolution.run({x, laid_out(forward_, w, workspace), y, forward_.scratch(workspace), bias});
  }

  void backward_data(const void* dy, const void* w, void* dx, GradMode mode, void* workspace) override {
    if (mode == GradMode::none) return;
    const ThreadCount count(context_.threads);
    const bool add = mode == GradMode::accumulate;
    void* to = add ? data_.result(workspace) : dx;
    data_.convolution.run({dy, laid_out(data_, w, workspace), to, data_.scratch(workspace)});
    if (add)
      pointwise_backward(context_, {.op = PointwiseId::identity,
                                    .dtype = d_.dtype,
                                    .n = x_.get_size() / size_of(d_.dtype),
                                    .saved = to,
                                    .dy = to,
                                    .dx = dx,
                                    .mode = GradMode::accumulate});
  }

  void backward_weights(const void* x, const void* dy, void* dw, GradMode mode, void* workspace) override {
    if (mode == GradMode::none) return;
    const ThreadCount count(context_.threads);
    Pass& p = mode == GradMode::accumulate ? weights_add_ : weights_;
    void* to = p.reorder ? p.weights(workspace) : dw;
    p.convolution.run({x, dy, to, p.scratch(workspace)});
    if (p.reorder) p.reorder.run({to, dw});
  }

 private:
  memory::desc image(std::int64_t height, std::int64_t width, std::int64_t channels) const {
    return {{d_.batch, channels, height, width}, stored_, memory::format_tag::nhwc};
  }
  // Logical [groups,] O, I, H, W; in memory [O, H, W, I] of each group.
  memory::desc weights(bool any, memory::data_type type) const {
    const std::int64_t i = d_.channels / d_.groups, o = d_.outputs / d_.groups,
                       taps = d_.kernel_h * d_.kernel_w;
    Dims shape{o, i, d_.kernel_h, d_.kernel_w}, strides{taps * i, 1, d_.kernel_w * i, i};
    if (d_.groups > 1) {
      shape.insert(shape.begin(), d_.groups);
      strides.insert(strides.begin(), o * taps * i);
    }
    if (any) return {shape, type, memory::format_tag::any};
    return {shape, type, strides};
  }
  static dnnl::primitive_attr attributes(bool add) {
    dnnl::primitive_attr attr;
    attr.set_scratchpad_mode(dnnl::scratchpad_mode::user);
    if (add) {
      dnnl::post_ops post;
      post.append_sum(1.0f);
      attr.set_post_ops(post);
    }
    return attr;
  }
  Dims strides() const { return {d_.stride_h, d_.stride_w}; }
  Dims pad() const { return {d_.pad_h, d_.pad_w}; }
  // What the last windows really need behind the image: oneDNN insists on the exact number.
  Dims pad_end() const {
    return {(d_.out_height() - 1) * d_.stride_h + d_.kernel_h - d_.height - d_.pad_h,
            (d_.out_width() - 1) * d_.stride_w + d_.kernel_w - d_.width - d_.pad_w};
  }

  template <class Description>
  Pass pass(const Description& pd, const memory::desc& used, bool gradient, bool add_reordered) {
    Pass p;
    p.implementation = pd.impl_info_str();
    p.scratch_bytes = aligned(pd.scratchpad_desc().get_size());
    const memory::desc ours = weights(false, gradient ? memory::data_type::f32 : stored_);
    if (used != ours || add_reordered) {
      p.weights_bytes = aligned(used.get_size());
      const memory::desc &from = gradient ? used : ours, &to = gradient ? ours : used;
      dnnl::primitive_attr attr;
      if (add_reordered) {
        dnnl::post_ops post;
        post.append_sum(1.0f);
        attr.set_post_ops(post);
      }
      p.reorder =
          Call(dnnl::reorder(dnnl::reorder::primitive_desc(engine_, from, engine_, to, attr)), stream_);
      p.reorder.add(DNNL_ARG_FROM, from, engine_);
      p.reorder.add(DNNL_ARG_TO, to, engine_);
    }
    return p;
  }

  dnnl::convolution_forward::primitive_desc forward_description() const {
    using Desc = dnnl::convolution_forward::desc;
    const auto kind = dnnl::prop_kind::forward_training;
    const auto algorithm = dnnl::algorithm::convolution_direct;
    const memory::desc bias({d_.outputs}, memory::data_type::f32, memory::format_tag::a);
    return {d_.bias ? Desc(kind, algorithm, x_, weights(true, stored_), bias, y_, strides(), pad(), pad_end())
                    : Desc(kind, algorithm, x_, weights(true, stored_), y_, strides(), pad(), pad_end()),
            attributes(false), engine_};
  }

  void make_forward() {
    const auto pd = forward_description();
    forward_ = pass(pd, pd.weights_desc(), false, false);
    Call& c = forward_.convolution = Call(dnnl::convolution_forward(pd), stream_);
    c.add(DNNL_ARG_SRC, pd.src_desc(), engine_);
    c.add(DNNL_ARG_WEIGHTS, pd.weights_desc(), engine_);
    c.add(DNNL_ARG_DST, pd.dst_desc(), engine_);
    c.add(DNNL_ARG_SCRATCHPAD, pd.scratchpad_desc(), engine_);
    if (d_.bias) c.add(DNNL_ARG_BIAS, pd.bias_desc(), engine_);
  }

  void make_backward_data() {
    const dnnl::convolution_backward_data::primitive_desc pd(
        {dnnl::algorithm::convolution_direct, x_, weights(true, stored_), y_, strides(), pad(), pad_end()},
        attributes(false), engine_, forward_description());
    data_ = pass(pd, pd.weights_desc(), false, false);
    data_.result_bytes = aligned(x_.get_size());
    Call& c = data_.convolution = Call(dnnl::convolution_backward_data(pd), stream_);
    c.add(DNNL_ARG_DIFF_DST, pd.diff_dst_desc(), engine_);
    c.add(DNNL_ARG_WEIGHTS, pd.weights_desc(), engine_);
    c.add(DNNL_ARG_DIFF_SRC, pd.diff_src_desc(), engine_);
    c.add(DNNL_ARG_SCRATCHPAD, pd.scratchpad_desc(), engine_);
  }

  void make_backward_weights() {
    const dnnl::convolution_backward_weights::primitive_desc pd(
        {dnnl::algorithm::convolution_direct, x_, weights(true, memory::data_type::f32), y_, strides(), pad(),
         pad_end()},
        attributes(false), engine_, forward_description());
    for (Pass* p : {&weights_, &weights_add_}) {
      *p = pass(pd, pd.diff_weights_desc(), true, p == &weights_add_);
      Call& c = p->convolution = Call(dnnl::convolution_backward_weights(pd), stream_);
      c.add(DNNL_ARG_SRC, pd.src_desc(), engine_);
      c.add(DNNL_ARG_DIFF_DST, pd.diff_dst_desc(), engine_);
      c.add(DNNL_ARG_DIFF_WEIGHTS, pd.diff_weights_desc(), engine_);
      c.add(DNNL_ARG_SCRATCHPAD, pd.scratchpad_desc(), engine_);
    }
  }

  // The weights as the pass wants them.
  static const void* laid_out(Pass& p, const void* w, void* workspace) {
    if (!p.reorder) return w;
    p.reorder.run({w, p.weights(workspace)});
    return p.weights(workspace);
  }

  const Context& context_;
  ConvolutionDesc d_;
  memory::data_type stored_;  // of images and weights
  dnnl::engine engine_;
  dnnl::stream stream_;
  memory::desc x_, y_;
  Pass forward_, data_, weights_, weights_add_;
};

// An empty batch: nothing to read, and the weights' gradient is zero.
class EmptyConvolution final : public Convolution {
 public:
  explicit EmptyConvolution(const ConvolutionDesc& d)
      : weights_(static_cast<std::size_t>(d.outputs * d.kernel_h * d.kernel_w * (d.channels / d.groups))) {}
  std::size_t forward_workspace() const noexcept override { return 0; }
  std::size_t backward_data_workspace() const noexcept override { return 0; }
  std::size_t backward_weights_workspace() const noexcept override { return 0; }
  void forward(const void*, const void*, const void*, void*, void*) override {}
  void backward_data(const void*, const void*, void*, GradMode, void*) override {}
  void backward_weights(const void*, const void*, void* dw, GradMode mode, void*) override {
    if (mode == GradMode::overwrite) std::fill_n(static_cast<float*>(dw), weights_, 0.0f);
  }

 private:
  std::size_t weights_;
};

class OneDnnConvolutions final : public VendorConvolution {
 public:
  explicit OneDnnConvolutions(const Context& context)
      : context_(context), engine_(dnnl::engine::kind::cpu, 0), stream_(engine_) {}

  std::unique_ptr<Convolution> prepare(const ConvolutionDesc& desc) override {
    if (desc.batch == 0) return std::make_unique<EmptyConvolution>(desc);
    const ThreadCount count(context_.threads);
    try {
      return std::make_unique<VendorConvolutionPasses>(context_, desc, engine_, stream_);
    } catch (const dnnl::error& error) {
      if (desc.dtype == DType::bf16 && error.status == dnnl_unimplemented) {
        ConvolutionDesc wide = desc;
        wide.dtype = DType::f32;
        return make_widened_convolution(desc, prepare(wide), [this](const Cast& c) { cpu::cast(context_, c); });
      }
      throw InternalError(std::string("oneDNN failed to prepare a convolution: ") + error.what());
    }
  }

 private:
  const Context& context_;
  dnnl::engine engine_;
  dnnl::stream stream_;
};

}  // namespace

std::unique_ptr<VendorConvolution> VendorConvolution::open(const Context& context) {
  try {
    return std::make_unique<OneDnnConvolutions>(context);
  } catch (const dnnl::error& error) {
    throw InternalError(std::string("oneDNN failed to open the CPU: ") + error.what());
  }
}

}  // namespace gradflow::kernels::cpu
