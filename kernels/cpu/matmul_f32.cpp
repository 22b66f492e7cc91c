// Matrix products in f32 and bf16 by oneDNN. This file and convolution_f32.cpp alone see its headers.
//
// oneDNN multiplies bf16 where the machine has AVX-512 (natively with AVX512_BF16, else by widening); sums are f32.
// Elsewhere the operands are widened here and the product is one of f32 numbers.
#include <algorithm>
#include <oneapi/dnnl/dnnl.hpp>

#include "functions.h"
#include "gradflow/kernels/error.h"
#include "storage.h"
#include "thread_count.h"

namespace gradflow::kernels::cpu {
namespace {

[[noreturn]] void fail(const char* what, const dnnl::error& error) {
  throw InternalError(std::string("oneDNN failed to ") + what + ": " + error.what());
}

// y keeps or gets the bias when there is nothing to sum: oneDNN is not asked about empty matrices.
class EmptyMatmul final : public Matmul {
 public:
  explicit EmptyMatmul(const MatmulDesc& desc)
      : m_(static_cast<std::size_t>(desc.m)),
        n_(static_cast<std::size_t>(desc.n)),
        accumulate_(desc.accumulate),
        bf16_(desc.y_dtype == DType::bf16) {}
  std::size_t workspace_bytes() const noexcept override { return 0; }
  void run(const void*, const void*, const void* bias, void* y, void*) override {
    if (accumulate_ || n_ == 0) return;
    if (bf16_)
      fill_rows(static_cast<const float*>(bias), static_cast<Bf16*>(y));
    else
      fill_rows(static_cast<const float*>(bias), static_cast<float*>(y));
  }

 private:
  template <class S>
  void fill_rows(const float* bias, S* y) const {
    for (std::size_t i = 0; i < m_ * n_; ++i) y[i] = narrow<S>(bias ? bias[i % n_] : 0.0f);
  }

  std::size_t m_, n_;
  bool accumulate_, bf16_;
};

// The memory objects and the argument list are made once. What oneDNN 2.6 allocates in a run is its own and cannot
// be had otherwise: it copies the list into a hash table (one allocation, and one for each argument) and wraps the
// loop in a function object (one): 6, and 1 more with a bias or accumulate.
class VendorProduct final : public Matmul {
 public:
  VendorProduct(const MatmulDesc& desc, const dnnl::engine& engine, const dnnl::stream& stream, int threads)
      : stream_(stream), threads_(threads) {
    using dims = dnnl::memory::dims;
    const auto matrix = [](dims shape, bool transposed, DType dtype) {
      using type = dnnl::memory::data_type;
      const dims strides = transposed ? dims{1, shape[0]} : dims{shape[1], 1};
      return dnnl::memory::desc(shape, dtype == DType::bf16 ? type::bf16 : type::f32, strides);
    };
    const auto a = matrix({desc.m, desc.k}, desc.transpose_a, desc.dtype);
    const auto b = matrix({desc.k, desc.n}, desc.transpose_b, desc.dtype);
    const auto y = matrix({desc.m, desc.n}, false, desc.y_dtype);
    const auto bias = desc.bias ? matrix({1, desc.n}, false, DType::f32) : dnnl::memory::desc();
    dnnl::primitive_attr attr;
    attr.set_scratchpad_mode(dnnl::scratchpad_mode::user);
    if (desc.accumulate) {
      dnnl::post_ops post;
      post.append_sum(1.0f);
      attr.set_post_ops(post);
    }
    const dnnl::matmul::primitive_desc description(
        desc.bias ? dnnl::matmul::desc(a, b, bias, y) : dnnl::matmul::desc(a, b, y), attr, engine);
    primitive_ = dnnl::matmul(description);
    workspace_bytes_ = description.scratchpad_desc().get_size();
    add(DNNL_ARG_SRC, description.src_desc(), engine);
    add(DNNL_ARG_WEIGHTS, description.weights_desc(), engine);
    add(DNNL_ARG_DST, description.dst_desc(), engine);
    add(DNNL_ARG_SCRATCHPAD, description.scratchpad_desc(), engine);
    if (desc.bias) add(DNNL_ARG_BIAS, bias, engine);
  }

  std::size_t workspace_bytes() const noexcept override { return workspace_bytes_; }

  void run(const void* a, const void* b, const void* bias, void* y, void* workspace) override {
    const ThreadCount count(threads_);
    const void* pointers[] = {a, b, y, workspace, bias};
    dnnl_status_t status = dnnl_success;
    for (int i = 0; i < used_ && status == dnnl_success; ++i)
      status = dnnl_memory_set_data_handle_v2(args_[i].memory, const_cast<void*>(pointers[i]), stream_.get());
    if (status == dnnl_success)
      status = dnnl_primitive_execute(primitive_.get(), stream_.get(), used_, args_);
    if (status != dnnl_success) throw InternalError("oneDNN failed to run a matrix product");
  }

 private:
  void add(int kind, const dnnl::memory::desc& desc, const dnnl::engine& engine) {
    memories_[used_] = dnnl::memory(desc, engine, DNNL_MEMORY_NONE);
    args_[used_] = {kind, memories_[used_].get()};
    ++used_;
  }

  dnnl::stream stream_;
  int threads_;
  dnnl::matmul primitive_;
  dnnl::memory memories_[5];
  dnnl_exec_arg_t args_[5] = {};
  int used_ = 0;
  std::size_t workspace_bytes_ = 0;
};

// A bf16 product as an f32 one: a, b and a bf16 y are widened into the workspace, in front of the product's own.
class WidenedProduct final : public Matmul {
 public:
  WidenedProduct(const MatmulDesc& desc, std::unique_ptr<Matmul> product)
      : product_(std::move(product)),
        a_(static_cast<std::size_t>(desc.m * desc.k)),
        b_(static_cast<std::size_t>(desc.k * desc.n)),
        y_(desc.y_dtype == DType::bf16 ? static_cast<std::size_t>(desc.m * desc.n) : 0),
        accumulate_(desc.accumulate) {}

  std::size_t workspace_bytes() const noexcept override {
    return room(a_) + room(b_) + room(y_) + product_->workspace_bytes();
  }

  void run(const void* a, const void* b, const void* bias, void* y, void* workspace) override {
    auto* at = static_cast<std::byte*>(workspace);
    const float* wide_a = widen_all(static_cast<const Bf16*>(a), a_, at);
    const float* wide_b = widen_all(static_cast<const Bf16*>(b), b_, at += room(a_));
    at += room(b_);
    auto* narrow_y = static_cast<Bf16*>(y);
    void* wide_y = y_ ? at : y;
    if (y_ && accumulate_) widen_all(narrow_y, y_, at);
    product_->run(wide_a, wide_b, bias, wide_y, at + room(y_));
    for (std::size_t i = 0; i < y_; ++i) narrow_y[i] = to_bf16(static_cast<const float*>(wide_y)[i]);
  }

 private:
  static std::size_t room(std::size_t n) { return (n * sizeof(float) + 63) / 64 * 64; }
  static const float* widen_all(const Bf16* x, std::size_t n, std::byte* to) {
    auto* wide = reinterpret_cast<float*>(to);
    for (std::size_t i = 0; i < n; ++i) wide[i] = to_float(x[i]);
    return wide;
  }

  std::unique_ptr<Matmul> product_;
  std::size_t a_, b_, y_;
  bool accumulate_;
};

class OneDnn final : public VendorMatmul {
 public:
  explicit OneDnn(int threads) : threads_(threads), engine_(dnnl::engine::kind::cpu, 0), stream_(engine_) {}

  std::unique_ptr<Matmul> prepare(const MatmulDesc& desc) override {
    if (desc.m == 0 || desc.n == 0 || desc.k == 0) return std::make_unique<EmptyMatmul>(desc);
    const ThreadCount count(threads_);
    try {
      return std::make_unique<VendorProduct>(desc, engine_, stream_, threads_);
    } catch (const dnnl::error& error) {
      if (desc.dtype == DType::bf16 && error.status == dnnl_unimplemented) {
        MatmulDesc wide = desc;
        wide.dtype = wide.y_dtype = DType::f32;
        return std::make_unique<WidenedProduct>(desc, prepare(wide));
      }
      fail("prepare a matrix product", error);
    }
  }

 private:
  int threads_;
  dnnl::engine engine_;
  dnnl::stream stream_;
};

}  // namespace

std::unique_ptr<VendorMatmul> VendorMatmul::open(int threads) {
  try {
    return std::make_unique<OneDnn>(threads);
  } catch (const dnnl::error& error) {
    fail("open the CPU", error);
  }
}

std::string VendorMatmul::version() {
  const dnnl_version_t* v = dnnl_version();
  return "oneDNN " + std::to_string(v->major) + "." + std::to_string(v->minor) + "." +
         std::to_string(v->patch);
}

}  // namespace gradflow::kernels::cpu
