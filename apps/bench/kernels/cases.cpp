// The list of benchmark cases. An operation that the backend contract gains gets its lines here; tests hold
// this list against the contract and against the kernels in the CUDA module.
#include <algorithm>
#include <memory>
#include <string_view>

#include "apps/bench/kernels/case.h"
#include "gradflow/kernels/error.h"

namespace gradflow::app {
namespace {

using kernels::Backend;

constexpr std::size_t kColumns = 256;  // of matrices where nothing else is said
using Pointers = std::span<void* const>;

Operand numbers(DType t, std::size_t n) { return {.dtype = t, .elements = n}; }
Operand zeros(std::size_t bytes) { return {Content::zero, DType::u8, bytes}; }
Operand statistics() { return zeros(sizeof(Stats)); }
// Parameters and their gradients beside tensors of type t.
DType parameter_type(DType t) { return t == DType::bf16 ? DType::f32 : t; }
Operand gates() { return {Content::gates, DType::u8, sizeof(kernels::Gates)}; }
Stats* stats_at(void* p) { return static_cast<Stats*>(p); }

class Cases {
 public:
  explicit Cases(DType dtype) : t_(dtype), bytes_(static_cast<double>(size_of(dtype))) {}

  void pointwise();
  void residual();
  void fusions();
  void batch_norm(bool packs);
  void pooling();
  void matrices();
  void loss();
  void probes();
  void inputs();
  void updates();
  void memory();
  std::vector<KernelCase> take() { return std::move(list_); }

 private:
  DType t_;
  double bytes_;  // of an element
  std::vector<KernelCase> list_;

  std::string named(std::string_view stem) const {
    return std::string(stem) + "_" + std::string(name_of(t_));
  }

  // The kernel is called as the stem with the dtype's name behind it.
  KernelCase& add(std::string_view stem, std::string_view variant, const char* family, const char* call,
                  const char* pass) {
    const std::string kernel = named(stem);
    return list_.emplace_back(KernelCase{.name = kernel + (variant.empty() ? "" : "/" + std::string(variant)),
                                         .family = family,
                                         .call = call,
                                         .pass = pass,
                                         .dtype = t_,
                                         .kernels = {kernel}});
  }

  // `reads` and `writes` arrays of n elements; `arrays` of them are operands, and then what else there is.
  auto arrays(std::size_t arrays, double reads, double writes, std::vector<Operand> more = {}) const {
    return [t = t_, b = bytes_, arrays, reads, writes, more = std::move(more)](std::size_t n) {
      Work w{.operands = std::vector<Operand>(arrays, numbers(t, n)),
             .read_bytes = reads * b * static_cast<double>(n),
             .written_bytes = writes * b * static_cast<double>(n)};
      w.operands.insert(w.operands.end(), more.begin(), more.end());
      return w;
    };
  }
};

// A matrix of at most `size` elements, with that many columns or fewer.
Work matrix(std::size_t size, std::size_t columns) {
  Work w;
  w.columns = std::min(size, columns);
  w.rows = size / w.columns;
  return w;
}

std::size_t elements(const Work& w) { return w.rows * w.columns; }

void Cases::pointwise() {
  ops::All::for_each([&]<class Op>() {
    const std::string op(Op::name);
    const DType t = t_;
    // Nothing is saved for the identity's sake, so its backward need not read it.
    const double saved = Op::id == PointwiseId::identity ? 0 : 1;
    for (const bool stats : {false, true}) {
      const std::string tail = stats ? "_stats" : "";
      KernelCase& forward = add(op + "_forward" + tail, "", "pointwise", "pointwise_forward", "forward");
      forward.work = arrays(2, 1, 1, {statistics(), statistics()});
      forward.bind = [t, stats](Backend& b, const Work& w, Pointers p) -> LaunchOnce {
        return [&b, a = kernels::PointwiseForward{
                        Op::id, t, w.operands[0].elements, p[0], p[1], stats ? stats_at(p[2]) : nullptr,
                        stats ? stats_at(p[3]) : nullptr}] { b.pointwise_forward(a); };
      };
      for (const GradMode mode : {GradMode::overwrite, GradMode::accumulate}) {
        const bool accumulate = mode == GradMode::accumulate;
        if (accumulate && stats) continue;
        KernelCase& backward = add(op + "_backward" + tail, accumulate ? "accumulate" : "", "pointwise",
                                   "pointwise_backward", "backward");
        backward.work = arrays(3, 1 + saved + accumulate, 1, {statistics(), statistics()});
        backward.bind = [t, stats, mode](Backend& b, const Work& w, Pointers p) -> LaunchOnce {
          return [&b, a = kernels::PointwiseBackward{Op::id, t, w.operands[0].elements, p[0], p[1], p[2],
                                                     mode, stats ? stats_at(p[3]) : nullptr,
                                                     stats ? stats_at(p[4]) : nullptr}] {
            b.pointwise_backward(a);
          };
        };
      }
    }
  });
}

void Cases::residual() {
  const DType t = t_;
  for (const bool stats : {false, true}) {
    const std::string tail = stats ? "_stats" : "";
    KernelCase& forward = add("residual_forward" + tail, "", "residual", "residual_forward", "forward");
    forward.work = arrays(3, 2, 1, {gates(), statistics()});
    forward.bind = [t, stats](Backend& b, const Work& w, Pointers p) -> LaunchOnce {
      return [&b, a = kernels::ResidualForward{t, w.operands[0].elements, p[0], p[1], p[2],
                                               static_cast<kernels::Gates*>(p[3]), 0.5,
                                               stats ? stats_at(p[4]) : nullptr}] { b.residual_forward(a); };
    };
    for (const GradMode mode : {GradMode::overwrite, GradMode::accumulate}) {
      const bool accumulate = mode == GradMode::accumulate;
      if (accumulate && stats) continue;
      KernelCase& backward = add("residual_backward" + tail, accumulate ? "accumulate" : "", "residual",
                                 "residual_backward", "backward");
      backward.work = arrays(3, 1 + accumulate, 2, {gates(), statistics()});
      backward.bind = [t, stats, mode](Backend& b, const Work& w, Pointers p) -> LaunchOnce {
        return
            [&b, a = kernels::ResidualBackward{t, w.operands[0].elements, p[0], p[1], mode, p[2],
                                               GradMode::overwrite, static_cast<kernels::Gates*>(p[3]), 0.5,
                                               stats ? stats_at(p[4]) : nullptr}] { b.residual_backward(a); };
      };
    }
  }
}

// What stands for two operations of the lists above, in one pass.
void Cases::fusions() {
  const DType t = t_;
  ops::All::for_each([&]<class Op>() {
    const std::string op(Op::name);
    const double saved = Op::id == PointwiseId::identity ? 0 : 1;
    const auto work = [t, b = bytes_](std::size_t arrays, double reads) {
      return [=](std::size_t size) {
        Work w = matrix(size, kColumns);
        w.operands.assign(arrays, numbers(t, elements(w)));
        for (int i = 0; i < 2; ++i) w.operands.push_back(numbers(parameter_type(t), w.columns));
        const auto n = static_cast<double>(elements(w));
        w.read_bytes = reads * b * n, w.written_bytes = b * n;
        return w;
      };
    };
    KernelCase& forward = add("bias_" + op + "_forward", "", "fusion", "bias_activation_forward", "forward");
    forward.work = work(2, 1);
    forward.bind = [t](Backend& b, const Work& w, Pointers p) -> LaunchOnce {
      return [&b, a = kernels::BiasActivationForward{Op::id, t, w.rows, w.columns, p[0], p[2], p[1]}] {
        b.bias_activation_forward(a);
      };
    };
    KernelCase& backward = add("bias_" + op + "_backward", "", "fusion", "bias_activation_backward", "backward");
    backward.work = work(3, 1 + saved);
    backward.bind = [t](Backend& b, const Work& w, Pointers p) -> LaunchOnce {
      return [&b, a = kernels::BiasActivationBackward{Op::id, t, w.rows, w.columns, p[0], p[3], p[1], p[2], p[4]}] {
        b.bias_activation_backward(a);
      };
    };
    if (Op::id == PointwiseId::identity || Op::saves == Saves::x) return;
    KernelCase& add_forward = add("residual_" + op + "_forward", "", "fusion", "residual_forward", "forward");
    add_forward.work = arrays(3, 2, 1, {gates()});
    add_forward.bind = [t](Backend& b, const Work& w, Pointers p) -> LaunchOnce {
      return [&b, a = kernels::ResidualForward{t, w.operands[0].elements, p[0], p[1], p[2],
                                               static_cast<kernels::Gates*>(p[3]), 0.5, nullptr, Op::id}] {
        b.residual_forward(a);
      };
    };
    KernelCase& add_backward = add("residual_" + op + "_backward", "", "fusion", "residual_backward", "backward");
    add_backward.work = arrays(4, 2, 2, {gates()});
    add_backward.bind = [t](Backend& b, const Work& w, Pointers p) -> LaunchOnce {
      return [&b, a = kernels::ResidualBackward{t, w.operands[0].elements, p[1], p[2], GradMode::overwrite, p[3],
                                                GradMode::overwrite, static_cast<kernels::Gates*>(p[4]), 0.5, nullptr,
                                                Op::id, p[0]}] { b.residual_backward(a); };
    };
  });
}

// A channel's mean must be known before its elements can be normalized, so x is read twice at least. Channels
// in fours are moved in packs.
void Cases::batch_norm(bool packs) {
  const DType t = t_;
  const char* variant = packs ? "" : "odd";
  const auto kernel = [&](const std::string& stem) { return named(stem + (packs ? "_packs" : "")); };
  const auto work = [t, b = bytes_, packs](std::size_t arrays, double reads, double writes) {
    return [=](std::size_t size) {
      Work w = matrix(size, packs ? kColumns : kColumns - 1);
      if (packs) w = matrix(std::max<std::size_t>(size, 4), std::max<std::size_t>(w.columns / 4 * 4, 4));
      const auto n = static_cast<double>(elements(w));
      w.operands.assign(arrays, numbers(t, elements(w)));
      for (int i = 0; i < 4; ++i) w.operands.push_back(numbers(t, w.columns));
      for (int i = 0; i < 2; ++i) w.operands.push_back({Content::positive, t, w.columns});
      w.read_bytes = reads * b * n, w.written_bytes = writes * b * n;
      return w;
    };
  };
  for (const bool training : {true, false}) {
    KernelCase& c = add(training ? "batch_norm_forward" : "batch_norm_apply", variant, "batch norm",
                        "batch_norm_forward", "forward");
    c.kernels = {kernel("batch_norm_mean"), kernel("batch_norm_variance"), kernel("batch_norm_apply")};
    if (!training) c.kernels = {kernel("batch_norm_apply")};
    c.work = work(2, training ? 2 : 1, 1);
    c.bind = [t, training](Backend& b, const Work& w, Pointers p) -> LaunchOnce {
      return [&b, a = kernels::BatchNormForward{.dtype = t,
                                                .rows = w.rows,
                                                .channels = w.columns,
                                                .x = p[0],
                                                .y = p[1],
                                                .scale = p[2],
                                                .shift = p[3],
                                                .mean = training ? p[4] : nullptr,
                                                .inv_std = training ? p[6] : nullptr,
                                                .running_mean = p[5],
                                                .running_variance = p[7],
                                                .training = training}] { b.batch_norm_forward(a); };
    };
  }
  KernelCase& c = add("batch_norm_backward", variant, "batch norm", "batch_norm_backward", "backward");
  c.kernels = {kernel("batch_norm_backward_sums"), kernel("batch_norm_backward_apply")};
  c.work = work(3, 4, 1);
  c.bind = [t](Backend& b, const Work& w, Pointers p) -> LaunchOnce {
    return [&b, a = kernels::BatchNormBackward{.dtype = t,
                                               .rows = w.rows,
                                               .channels = w.columns,
                                               .x = p[0],
                                               .dy = p[1],
                                               .scale = p[3],
                                               .mean = p[4],
                                               .inv_std = p[7],
                                               .dx = p[2],
                                               .dscale = p[5],
                                               .dshift = p[6]}] { b.batch_norm_backward(a); };
  };
}

// Windows of 3x3 with stride 2, as ResNets begin; small images at small sizes.
void Cases::pooling() {
  const DType t = t_;
  const auto window = [](std::size_t size) {
    kernels::PoolWindow w{.batch = static_cast<std::int64_t>(size), .height = 1, .width = 1, .channels = 1};
    if (size >= 16384) w = {.batch = w.batch / 16384, .height = 16, .width = 16, .channels = 64};
    w.kernel_h = w.kernel_w = 3, w.stride_h = w.stride_w = 2, w.pad_h = w.pad_w = 1;
    return w;
  };
  const auto count = [](std::int64_t b, std::int64_t h, std::int64_t w, std::int64_t c) {
    return static_cast<std::size_t>(b * h * w * c);
  };
  const auto shortcut = [window](std::size_t size) {
    const kernels::PoolWindow w = window(size);
    return kernels::ShortcutShape{w.batch, w.height, w.width, w.channels, 2 * w.channels, 2};
  };
  for (const bool backward : {false, true}) {
    const char* pass = backward ? "backward" : "forward";
    const char* part = backward ? "gradient" : "all";
    for (const bool max : {true, false}) {
      KernelCase& c = add(std::string(max ? "pool_max_" : "pool_average_") + part, "", "pooling",
                          max ? (backward ? "max_pool_backward" : "max_pool_forward")
                              : (backward ? "average_pool_backward" : "average_pool_forward"),
                          pass);
      c.work = [=, b = bytes_](std::size_t size) {
        const kernels::PoolWindow p = window(size);
        const std::size_t x = count(p.batch, p.height, p.width, p.channels),
                          y = count(p.batch, p.out_height(), p.out_width(), p.channels);
        Work w;
        w.rows = static_cast<std::size_t>(p.batch), w.columns = x / w.rows;
        w.operands = {numbers(t, x), numbers(t, y), zeros(y * sizeof(std::int32_t))};
        const double indices = max ? static_cast<double>(y * sizeof(std::int32_t)) : 0.0;
        const double bx = b * static_cast<double>(x), by = b * static_cast<double>(y);
        w.read_bytes = backward ? by + indices : bx, w.written_bytes = backward ? bx : by + indices;
        return w;
      };
      c.bind = [=](Backend& b, const Work& w, Pointers p) -> LaunchOnce {
        const kernels::PoolWindow shape = window(elements(w));
        auto* winners = static_cast<std::int32_t*>(p[2]);
        if (max && backward)
          return
              [&b, a = kernels::MaxPoolBackward{t, shape, winners, p[1], p[0]}] { b.max_pool_backward(a); };
        if (max)
          return [&b, a = kernels::MaxPoolForward{t, shape, p[0], p[1], winners}] { b.max_pool_forward(a); };
        if (backward)
          return [&b, a = kernels::AveragePoolBackward{t, shape, p[1], p[0]}] { b.average_pool_backward(a); };
        return [&b, a = kernels::AveragePoolForward{t, shape, p[0], p[1]}] { b.average_pool_forward(a); };
      };
    }
    KernelCase& c = add(std::string("shortcut_") + part, "", "pooling",
                        backward ? "shortcut_backward" : "shortcut_forward", pass);
    c.work = [=, b = bytes_](std::size_t size) {
      const kernels::ShortcutShape s = shortcut(size);
      const std::size_t x = count(s.batch, s.height, s.width, s.channels),
                        y = count(s.batch, s.out_height(), s.out_width(), s.outputs);
      Work w;
      w.rows = static_cast<std::size_t>(s.batch), w.columns = x / w.rows;
      w.operands = {numbers(t, x), numbers(t, y)};
      // Of x every fourth pixel is read; of dy half the channels.
      const double bx = b * static_cast<double>(x), by = b * static_cast<double>(y);
      w.read_bytes = by / 2, w.written_bytes = backward ? bx : by;
      return w;
    };
    c.bind = [=](Backend& b, const Work& w, Pointers p) -> LaunchOnce {
      const kernels::ShortcutShape s = shortcut(elements(w));
      if (backward) return [&b, a = kernels::ShortcutBackward{t, s, p[1], p[0]}] { b.shortcut_backward(a); };
      return [&b, a = kernels::ShortcutForward{t, s, p[0], p[1]}] { b.shortcut_forward(a); };
    };
  }
}

void Cases::matrices() {
  const DType t = t_;
  KernelCase& sum = add("column_sum", "", "reduction", "column_sum", "backward");
  sum.work = [t, b = bytes_](std::size_t size) {
    Work w = matrix(size, kColumns);
    w.operands = {numbers(t, elements(w)), numbers(parameter_type(t), w.columns)};
    w.read_bytes = b * static_cast<double>(elements(w)),
    w.written_bytes = static_cast<double>(w.operands[1].bytes());
    return w;
  };
  sum.bind = [t](Backend& b, const Work& w, Pointers p) -> LaunchOnce {
    return [&b, a = kernels::ColumnSum{t, w.rows, w.columns, p[0], p[1]}] { b.column_sum(a); };
  };

  // A product with an inner dimension of 0 leaves the bias in every row.
  KernelCase& bias = add("broadcast_rows", "", "bias", "prepare_matmul", "forward");
  bias.work = [t, b = bytes_](std::size_t size) {
    Work w = matrix(size, kColumns);
    w.operands = {numbers(parameter_type(t), w.columns), numbers(t, elements(w))};
    w.read_bytes = static_cast<double>(w.operands[0].bytes()),
    w.written_bytes = b * static_cast<double>(elements(w));
    return w;
  };
  bias.bind = [t](Backend& b, const Work& w, Pointers p) -> LaunchOnce {
    const auto product = b.prepare_matmul({.dtype = t,
                                           .m = static_cast<std::int64_t>(w.rows),
                                           .n = static_cast<std::int64_t>(w.columns),
                                           .k = 0,
                                           .bias = true});
    return [product, from = p[0], to = p[1]] { product->run(nullptr, nullptr, from, to, nullptr); };
  };
}

void Cases::loss() {
  const DType t = t_;
  for (const std::size_t classes : {10, 1000}) {
    KernelCase& c = add("softmax_cross_entropy", "classes=" + std::to_string(classes), "loss",
                        "softmax_cross_entropy", "forward");
    c.work = [t, b = bytes_, classes](std::size_t size) {
      Work w = matrix(size, classes);
      const auto n = static_cast<double>(elements(w));
      w.operands = {numbers(t, elements(w)),
                    {Content::labels, DType::i32, w.rows, static_cast<std::int32_t>(w.columns)},
                    numbers(t, elements(w)),
                    zeros(sizeof(kernels::LossResult))};
      w.read_bytes = b * n + 4 * static_cast<double>(w.rows), w.written_bytes = b * n;
      return w;
    };
    c.bind = [t](Backend& b, const Work& w, Pointers p) -> LaunchOnce {
      return [&b, a = kernels::SoftmaxCrossEntropy{
                      t, w.rows, w.columns, p[0], static_cast<std::int32_t*>(p[1]), p[2],
                      static_cast<kernels::LossResult*>(p[3])}] { b.softmax_cross_entropy(a); };
    };
  }
}

void Cases::probes() {
  const DType t = t_;
  ops::All::for_each([&]<class Op>() {
    if (!Op::saturates && Op::id != PointwiseId::identity) return;  // the same kernel as the identity's
    KernelCase& c = add(std::string(Op::name) + "_stats", "", "probe", "stats", "probe");
    c.work = arrays(1, 1, 0, {statistics()});
    c.bind = [t](Backend& b, const Work& w, Pointers p) -> LaunchOnce {
      return
          [&b, a = kernels::StatsOf{t, w.operands[0].elements, p[0], Op::id, stats_at(p[1])}] { b.stats(a); };
    };
  });
  KernelCase& difference = add("difference_stats", "", "probe", "difference_stats", "probe");
  difference.work = arrays(2, 2, 0, {statistics(), zeros(sizeof(double))});
  difference.bind = [t](Backend& b, const Work& w, Pointers p) -> LaunchOnce {
    return [&b, a = kernels::DifferenceStats{t, w.operands[0].elements, p[0], p[1], stats_at(p[2]),
                                             static_cast<double*>(p[3])}] { b.difference_stats(a); };
  };
  KernelCase& histogram = add("exponent_histogram", "", "probe", "exponent_histogram", "probe");
  histogram.work = arrays(1, 1, 0, {zeros(kExponentBins * sizeof(std::uint64_t))});
  histogram.bind = [t](Backend& b, const Work& w, Pointers p) -> LaunchOnce {
    return
        [&b, a = kernels::ExponentHistogram{t, w.operands[0].elements, p[0],
                                            static_cast<std::uint64_t*>(p[1])}] { b.exponent_histogram(a); };
  };
  KernelCase& alive = add("mark_alive", "", "probe", "mark_alive", "probe");
  alive.work = [t, b = bytes_](std::size_t size) {
    Work w = matrix(size, kColumns);
    w.operands = {numbers(t, elements(w)), zeros(w.columns)};
    w.read_bytes = b * static_cast<double>(elements(w)), w.written_bytes = static_cast<double>(w.columns);
    return w;
  };
  alive.bind = [t](Backend& b, const Work& w, Pointers p) -> LaunchOnce {
    return [&b, a = kernels::MarkAlive{t, w.rows, w.columns, p[0], static_cast<std::uint8_t*>(p[1])}] {
      b.mark_alive(a);
    };
  };
}

void Cases::inputs() {
  const DType t = t_;
  constexpr std::size_t kPixels = 784;
  KernelCase& gather = add("gather_batch", "", "input", "gather_batch", "input");
  gather.work = [t, b = bytes_](std::size_t size) {
    Work w = matrix(size, kPixels);
    const auto n = static_cast<double>(elements(w)), rows = static_cast<double>(w.rows);
    w.operands = {{Content::bytes, DType::u8, elements(w)},
                  {Content::bytes, DType::u8, w.rows},
                  {Content::rows, DType::i32, w.rows},
                  numbers(t, elements(w)),
                  {Content::zero, DType::i32, w.rows}};
    w.read_bytes = n + 5 * rows, w.written_bytes = b * n + 4 * rows;
    return w;
  };
  gather.bind = [t](Backend& b, const Work& w, Pointers p) -> LaunchOnce {
    return [&b, a = kernels::GatherBatch{t, w.rows, w.columns, static_cast<std::uint8_t*>(p[0]),
                                         static_cast<std::uint8_t*>(p[1]), static_cast<std::int32_t*>(p[2]),
                                         0.3f, 2.0f, p[3], static_cast<std::int32_t*>(p[4])}] {
      b.gather_batch(a);
    };
  };
  KernelCase& crop = add("gather_crop", "", "input", "gather_batch", "input");
  crop.work = [work = gather.work](std::size_t size) {
    Work w = work(size);
    w.operands.push_back({Content::zero, DType::u8, 3 * w.rows});
    w.read_bytes += 3 * static_cast<double>(w.rows);
    return w;
  };
  crop.bind = [t](Backend& b, const Work& w, Pointers p) -> LaunchOnce {
    kernels::GatherBatch a{t, w.rows, w.columns, static_cast<std::uint8_t*>(p[0]), static_cast<std::uint8_t*>(p[1]),
                           static_cast<std::int32_t*>(p[2]), 0.3f, 2.0f, p[3], static_cast<std::int32_t*>(p[4])};
    const std::size_t height = w.columns % 28 == 0 ? 28 : 1;
    a.height = height, a.width = w.columns / height, a.channels = 1;
    a.crops = static_cast<std::int8_t*>(p[5]);
    return [&b, a] { b.gather_batch(a); };
  };
  for (const bool normal : {false, true}) {
    KernelCase& random = add(normal ? "random_normal" : "random_uniform", "", "memory", "random_fill", "memory");
    random.work = arrays(1, 0, 1);
    random.bind = [t, normal](Backend& b, const Work& w, Pointers p) -> LaunchOnce {
      const auto distribution = normal ? kernels::Distribution::normal : kernels::Distribution::uniform;
      return [&b, a = kernels::RandomFill{t, w.operands[0].elements, p[0], distribution, 0, 1, 1, 2, 0}] {
        b.random_fill(a);
      };
    };
  }
  // From the other type of storage: bf16 to f32, f32 to all others.
  KernelCase& cast = add("cast_to", "", "memory", "cast", "memory");
  const DType from = t == DType::f32 ? DType::bf16 : DType::f32;
  cast.work = [t, from](std::size_t n) {
    Work w{.operands = {numbers(from, n), numbers(t, n)}};
    w.read_bytes = static_cast<double>(w.operands[0].bytes()), w.written_bytes = static_cast<double>(w.operands[1].bytes());
    return w;
  };
  cast.bind = [t, from](Backend& b, const Work& w, Pointers p) -> LaunchOnce {
    return [&b, a = kernels::Cast{from, t, w.operands[0].elements, p[0], p[1]}] { b.cast(a); };
  };
  KernelCase& fill = add("fill", "", "memory", "fill", "memory");
  fill.work = arrays(1, 0, 1);
  fill.bind = [t](Backend& b, const Work& w, Pointers p) -> LaunchOnce {
    return [&b, t, to = p[0], n = w.operands[0].elements] { b.fill(t, to, n, 0.5); };
  };
}

// All parameters in one launch: one tensor, and as many of different lengths as a deep network has.
void Cases::updates() {
  using kernels::OptimizerKind;
  const DType t = t_;
  struct Row {
    const char* stem;
    const char* variant;
    OptimizerKind kind;
    std::size_t moments, tensors;
    bool stats, copy;
  };
  const Row rows[] = {{"sgd_update", "momentum=0", OptimizerKind::sgd, 0, 1, false, false},
                      {"sgd_update", "", OptimizerKind::sgd, 1, 1, false, false},
                      {"sgd_update", "tensors=100", OptimizerKind::sgd, 1, 100, false, false},
                      {"sgd_update", "bf16_copy", OptimizerKind::sgd, 1, 1, false, true},
                      {"sgd_update_stats", "", OptimizerKind::sgd, 1, 1, true, false},
                      {"nesterov_update", "", OptimizerKind::nesterov, 1, 1, false, false},
                      {"nesterov_update_stats", "", OptimizerKind::nesterov, 1, 1, true, false},
                      {"adam_update", "", OptimizerKind::adam, 2, 1, false, false},
                      {"adam_update_stats", "", OptimizerKind::adam, 2, 1, true, false},
                      {"adamw_update", "", OptimizerKind::adamw, 2, 1, false, false},
                      {"adamw_update", "tensors=100", OptimizerKind::adamw, 2, 100, false, false},
                      {"adamw_update_stats", "", OptimizerKind::adamw, 2, 1, true, false}};
  for (const Row& row : rows) {
    KernelCase& c = add(row.stem, row.variant, "optimizer", "prepare_update", "update");
    c.work = [t, b = bytes_, row](std::size_t n) {
      const auto moments = static_cast<double>(row.moments);
      Work w{.operands = {numbers(t, n),
                          numbers(t, n),
                          numbers(t, row.moments > 0 ? n : 0),
                          {Content::positive, t, row.moments > 1 ? n : 0},
                          {Content::scalars, DType::u8, sizeof(kernels::OptimizerScalars)},
                          statistics(),
                          statistics(),
                          statistics()},
             .read_bytes = (2 + moments) * b * static_cast<double>(n),
             .written_bytes = ((1 + moments) * b + (row.copy ? 2 : 0)) * static_cast<double>(n)};
      if (row.copy) w.operands.push_back(numbers(DType::bf16, n));
      return w;
    };
    c.bind = [t, row](Backend& b, const Work& w, Pointers p) -> LaunchOnce {
      const std::size_t n = w.operands[0].elements, step = size_of(t);
      const auto at = [&](std::size_t operand, std::size_t element) -> void* {
        return w.operands[operand].elements == 0 ? nullptr
                                                 : static_cast<std::byte*>(p[operand]) + element * step;
      };
      // Lengths in the proportion 1 : 3, as biases and small layers lie among larger ones.
      std::vector<kernels::UpdateSlice> slices;
      const std::size_t pair = std::max<std::size_t>(n / std::max<std::size_t>(row.tensors / 2, 1), 1);
      for (std::size_t from = 0; from < n;) {
        const bool odd = slices.size() % 2 != 0;
        const std::size_t wanted =
            row.tensors == 1 ? n : std::max<std::size_t>(odd ? pair - pair / 4 : pair / 4, 1);
        const std::size_t length = std::min(wanted, n - from);
        slices.push_back({.n = length,
                          .w = at(0, from),
                          .dw = at(1, from),
                          .first_moment = at(2, from),
                          .second_moment = at(3, from),
                          .w_stats = row.stats ? stats_at(p[5]) : nullptr,
                          .dw_stats = row.stats ? stats_at(p[6]) : nullptr,
                          .update_stats = row.stats ? stats_at(p[7]) : nullptr,
                          .w_bf16 = row.copy ? static_cast<std::byte*>(p[8]) + 2 * from : nullptr});
        from += length;
      }
      const std::shared_ptr<kernels::Update> update = b.prepare_update(
          {.kind = row.kind, .dtype = t, .scalars = static_cast<kernels::OptimizerScalars*>(p[4])}, slices);
      return [update] { update->run(); };
    };
  }
}

void Cases::memory() {
  using kernels::Traffic;
  struct Row {
    const char* stem;
    Traffic kind;
    std::size_t reads, writes;
  };
  for (const Row& row : {Row{"memory_read", Traffic::read, 1, 0}, Row{"memory_copy", Traffic::copy, 1, 1},
                         Row{"memory_add", Traffic::add, 2, 1}}) {
    KernelCase& c = add(row.stem, "", "memory", "move_memory", "memory");
    c.work = arrays(3, static_cast<double>(row.reads), static_cast<double>(row.writes));
    c.bind = [kind = row.kind](Backend& b, const Work& w, Pointers p) -> LaunchOnce {
      return [&b, a = kernels::MoveMemory{kind, w.operands[0].elements, static_cast<float*>(p[0]),
                                          static_cast<float*>(p[1]), static_cast<float*>(p[2])}] {
        b.move_memory(a);
      };
    };
  }
}

}  // namespace

std::vector<KernelCase> kernel_cases(DType dtype) {
  if (dtype != DType::f32 && dtype != DType::f64 && dtype != DType::bf16)
    throw InternalError("no kernels are benchmarked in " + std::string(name_of(dtype)));
  Cases cases(dtype);
  cases.pointwise();
  cases.residual();
  cases.fusions();
  if (dtype != DType::bf16) {
    cases.batch_norm(true);
    cases.batch_norm(false);
    cases.pooling();
  }
  cases.matrices();
  cases.loss();
  cases.probes();
  cases.inputs();
  if (dtype != DType::bf16) cases.updates();  // moments and weights stay in full precision
  if (dtype == DType::f32) cases.memory();
  return cases.take();
}

}  // namespace gradflow::app
