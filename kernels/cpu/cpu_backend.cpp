// The host behind the Backend interface: memory, facts about the machine, and forwarding.
#include <fmt/format.h>
#include <omp.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <unordered_map>
#include <vector>

#include "functions.h"
#include "gradflow/kernels/error.h"
#include "gradflow/kernels/host_memory.h"
#include "gradflow/kernels/host_timer.h"
#include "storage.h"

namespace gradflow::kernels {
namespace cpu {

void require_real(DType dtype) {
  if (dtype != DType::f32 && dtype != DType::f64)
    throw UserError(fmt::format("the host computes this in f32 or f64, not in {}", name_of(dtype)));
}

void require_stored(DType dtype) {
  if (dtype != DType::f32 && dtype != DType::f64 && dtype != DType::bf16)
    throw UserError(fmt::format("the host computes in f32, f64 or bf16, not in {}", name_of(dtype)));
}

namespace {

// The value after "key<spaces>:" in a file like /proc/cpuinfo; empty if absent.
std::string proc_value(const char* file, std::string_view key) {
  std::ifstream in(file);
  for (std::string line; std::getline(in, line);) {
    if (line.compare(0, key.size(), key) != 0) continue;
    const std::size_t colon = line.find(':');
    const std::size_t from = colon == std::string::npos ? colon : line.find_first_not_of(" \t", colon + 1);
    if (from != std::string::npos) return line.substr(from);
  }
  return {};
}

std::size_t memory_of_machine() {
  return std::strtoull(proc_value("/proc/meminfo", "MemTotal").c_str(), nullptr, 10) * 1024;
}

// The largest that the first processor sees. sysconf() tells of a whole machine's even in a small part of it.
std::size_t last_level_cache() {
  std::size_t largest = 0;
  for (int i = 0; i < 8; ++i) {
    std::ifstream in(fmt::format("/sys/devices/system/cpu/cpu0/cache/index{}/size", i));  // "32768K"
    std::size_t kib = 0;
    char unit = 0;
    if (in >> kib >> unit && unit == 'K') largest = std::max(largest, kib * 1024);
  }
  return largest;
}

struct HashMatmul {
  std::size_t operator()(const MatmulDesc& d) const noexcept {
    std::size_t h = static_cast<std::size_t>(d.dtype);
    for (std::size_t v : {static_cast<std::size_t>(d.m), static_cast<std::size_t>(d.n),
                          static_cast<std::size_t>(d.k), std::size_t{d.transpose_a},
                          std::size_t{d.transpose_b}, std::size_t{d.accumulate}, std::size_t{d.bias},
                          static_cast<std::size_t>(d.y_dtype)})
      h = h * 0x9e3779b97f4a7c15u + v + (h >> 29);
    return h;
  }
};

class CpuBackend final : public Backend {
 public:
  explicit CpuBackend(int threads) {
    context_.threads = threads > 0 ? threads : omp_get_max_threads();
    vendor_ = VendorMatmul::open(context_.threads);
    vendor_convolutions_ = VendorConvolution::open(context_);
    info_.name = "cpu";
    info_.model = proc_value("/proc/cpuinfo", "model name");
    if (info_.model.empty()) info_.model = "unknown processor";
    info_.libraries = fmt::format("{}, OpenMP {} thread{}", VendorMatmul::version(), context_.threads,
                                  context_.threads == 1 ? "" : "s");
    info_.precision = "f32 (no fast-math, denormals kept), f64, bf16 (f32 sums)";
    info_.memory_bytes = memory_of_machine();
    info_.cache_bytes = last_level_cache();
    info_.threads = context_.threads;
  }

  const DeviceInfo& info() const noexcept override { return info_; }
  bool supports(DType dtype) const noexcept override {
    return dtype == DType::f32 || dtype == DType::f64 || dtype == DType::bf16;
  }
  bool is_host() const noexcept override { return true; }

  void* allocate(std::size_t bytes) override {
    if (bytes == 0) return nullptr;
    // Linux hands out more memory than there is and ends the process later, when it is touched. Asking what there is
    // takes longer than a small allocation.
    void* p = nullptr;
    if (bytes < kSmall || (bytes <= PTRDIFF_MAX && bytes <= available_bytes()))
      p = std::aligned_alloc(kAlignment, (bytes + kAlignment - 1) / kAlignment * kAlignment);
    if (!p)
      throw UserError(
          fmt::format("not enough memory on cpu: {} bytes asked for, {} available", bytes, available_bytes()));
    return p;
  }
  std::size_t available_bytes() override { return available_host_memory(); }
  void deallocate(void* pointer) noexcept override { std::free(pointer); }
  void copy_in(void* device, const void* host, std::size_t bytes) override { copy(device, host, bytes); }
  void copy_out(void* host, const void* device, std::size_t bytes) override { copy(host, device, bytes); }
  void copy(void* to, const void* from, std::size_t bytes) override {
    if (bytes) std::memcpy(to, from, bytes);
  }
  void zero(void* pointer, std::size_t bytes) override {
    if (bytes) std::memset(pointer, 0, bytes);
  }
  void fill(DType dtype, void* pointer, std::size_t n, double value) override {
    cpu::fill(context_, dtype, pointer, n, value);
  }
  void synchronize() override {}
  std::unique_ptr<Recording> record(const std::function<void()>&) override { return nullptr; }
  RangeName register_range(const char*) override { return nullptr; }
  void range_begin(RangeName) noexcept override {}
  void range_end() noexcept override {}
  void profile_start() override {}
  void profile_stop() override {}
  std::unique_ptr<Timer> make_timer() override { return std::make_unique<HostTimer>(); }

  void allow_tf32() override { throw UserError("TF32 needs a CUDA device: cpu multiplies f32 numbers as they are"); }

  std::shared_ptr<Matmul> prepare_matmul(const MatmulDesc& desc) override {
    require_stored(desc.dtype);
    if (desc.y_dtype != desc.dtype && !(desc.dtype == DType::bf16 && desc.y_dtype == DType::f32))
      throw InternalError(fmt::format("a matrix product of {} operands has no {} result", name_of(desc.dtype),
                                      name_of(desc.y_dtype)));
    if (desc.m < 0 || desc.n < 0 || desc.k < 0)
      throw InternalError(fmt::format("matrix product of negative size {}x{}x{}", desc.m, desc.n, desc.k));
    if (desc.bias && desc.accumulate)
      throw InternalError("a matrix product cannot both add a bias and accumulate");
    std::shared_ptr<Matmul>& slot = matmuls_[desc];
    if (!slot) slot = desc.dtype == DType::f64 ? make_matmul_f64(context_, desc) : vendor_->prepare(desc);
    return slot;
  }
  std::shared_ptr<Convolution> prepare_convolution(const ConvolutionDesc& desc) override {
    require_stored(desc.dtype);
    require_convolution(desc);
    for (const auto& [known, convolution] : convolutions_)
      if (known == desc) return convolution;
    std::shared_ptr<Convolution> made = desc.dtype == DType::f64 ? make_convolution_f64(context_, desc)
                                                                 : vendor_convolutions_->prepare(desc);
    return convolutions_.emplace_back(desc, std::move(made)).second;
  }
  std::unique_ptr<Update> prepare_update(const UpdateDesc& desc,
                                         std::span<const UpdateSlice> slices) override {
    return make_update(context_, desc, slices);
  }

  void pointwise_forward(const PointwiseForward& a) override { cpu::pointwise_forward(context_, a); }
  void pointwise_backward(const PointwiseBackward& a) override { cpu::pointwise_backward(context_, a); }
  void bias_activation_forward(const BiasActivationForward& a) override {
    cpu::bias_activation_forward(context_, a);
  }
  void bias_activation_backward(const BiasActivationBackward& a) override {
    cpu::bias_activation_backward(context_, a);
  }
  void residual_forward(const ResidualForward& a) override { cpu::residual_forward(context_, a); }
  void residual_backward(const ResidualBackward& a) override { cpu::residual_backward(context_, a); }
  void scalar_forward(const ScalarForward& a) override { cpu::scalar_forward(context_, a); }
  void scalar_backward(const ScalarBackward& a) override { cpu::scalar_backward(context_, a); }
  void batch_norm_forward(const BatchNormForward& a) override { cpu::batch_norm_forward(context_, a); }
  void batch_norm_backward(const BatchNormBackward& a) override { cpu::batch_norm_backward(context_, a); }
  void max_pool_forward(const MaxPoolForward& a) override { cpu::max_pool_forward(context_, a); }
  void max_pool_backward(const MaxPoolBackward& a) override { cpu::max_pool_backward(context_, a); }
  void average_pool_forward(const AveragePoolForward& a) override { cpu::average_pool_forward(context_, a); }
  void average_pool_backward(const AveragePoolBackward& a) override {
    cpu::average_pool_backward(context_, a);
  }
  void shortcut_forward(const ShortcutForward& a) override { cpu::shortcut_forward(context_, a); }
  void shortcut_backward(const ShortcutBackward& a) override { cpu::shortcut_backward(context_, a); }
  void column_sum(const ColumnSum& a) override { cpu::column_sum(context_, a); }
  void softmax_cross_entropy(const SoftmaxCrossEntropy& a) override {
    cpu::softmax_cross_entropy(context_, a);
  }
  void stats(const StatsOf& a) override { cpu::stats(context_, a); }
  void difference_stats(const DifferenceStats& a) override { cpu::difference_stats(context_, a); }
  void exponent_histogram(const ExponentHistogram& a) override { cpu::exponent_histogram(context_, a); }
  void mark_alive(const MarkAlive& a) override { cpu::mark_alive(context_, a); }
  void gather_batch(const GatherBatch& a) override { cpu::gather_batch(context_, a); }
  void cast(const Cast& a) override { cpu::cast(context_, a); }
  void random_fill(const RandomFill& a) override { cpu::random_fill(context_, a); }
  void move_memory(const MoveMemory& a) override { cpu::move_memory(context_, a); }

 private:
  static constexpr std::size_t kAlignment = 256, kSmall = std::size_t{1} << 20;
  Context context_;
  DeviceInfo info_;
  std::unique_ptr<VendorMatmul> vendor_;
  std::unique_ptr<VendorConvolution> vendor_convolutions_;
  std::unordered_map<MatmulDesc, std::shared_ptr<Matmul>, HashMatmul> matmuls_;
  std::vector<std::pair<ConvolutionDesc, std::shared_ptr<Convolution>>> convolutions_;
};

}  // namespace
}  // namespace cpu

std::unique_ptr<Backend> open_cpu(int threads) {
  if (threads < 0)
    throw UserError(fmt::format("a thread count of {} makes no sense; 0 means all cores", threads));
  return std::make_unique<cpu::CpuBackend>(threads);
}

}  // namespace gradflow::kernels
