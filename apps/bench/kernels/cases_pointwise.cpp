// Cases of activations and residual additions, alone and fused.
#include <string>

#include "apps/bench/kernels/case_list.h"

namespace gradflow::app::cases {

void CaseList::pointwise() {
  ops::All::for_each([&]<class Op>() {
    const std::string op(Op::name);
    const DType t = t_;
    // Nothing is saved for the identity's sake, so its backward need not read it.
    const double saved = Op::id == PointwiseId::identity ? 0 : 1;
    if (Op::id == PointwiseId::relu) with_exponents();
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

// Statistics and histograms of both arrays in one pass; one operation stands for all.
void CaseList::with_exponents() {
  const DType t = t_;
  const Operand bins = zeros(kExponentBins * sizeof(std::uint64_t));
  const auto bins_at = [](void* p) { return static_cast<std::uint64_t*>(p); };
  KernelCase& forward = add("relu_forward_stats", "exponents", "pointwise", "pointwise_forward", "forward");
  forward.work = arrays(2, 1, 1, {statistics(), statistics(), bins, bins});
  forward.bind = [t, bins_at](Backend& b, const Work& w, Pointers p) -> LaunchOnce {
    return [&b, a = kernels::PointwiseForward{PointwiseId::relu, t, w.operands[0].elements, p[0], p[1], stats_at(p[2]),
                                              stats_at(p[3]), bins_at(p[4]), bins_at(p[5])}] {
      b.pointwise_forward(a);
    };
  };
  KernelCase& backward = add("relu_backward_stats", "exponents", "pointwise", "pointwise_backward", "backward");
  backward.work = arrays(3, 2, 1, {statistics(), statistics(), bins, bins});
  backward.bind = [t, bins_at](Backend& b, const Work& w, Pointers p) -> LaunchOnce {
    return [&b, a = kernels::PointwiseBackward{PointwiseId::relu, t, w.operands[0].elements, p[0], p[1], p[2],
                                               GradMode::overwrite, stats_at(p[3]), stats_at(p[4]), bins_at(p[5]),
                                               bins_at(p[6])}] { b.pointwise_backward(a); };
  };
}

// Everything that can be measured of it, with an activation behind it; one operation stands for all.
void CaseList::measured_residual() {
  const DType t = t_;
  const std::vector<Operand> more{gates(), statistics(), statistics(), statistics()};
  KernelCase& forward = add("residual_forward_stats", "relu", "residual", "residual_forward", "forward");
  forward.work = arrays(3, 2, 1, more);
  forward.bind = [t](Backend& b, const Work& w, Pointers p) -> LaunchOnce {
    kernels::ResidualForward a{t, w.operands[0].elements, p[0], p[1], p[2], static_cast<kernels::Gates*>(p[3]), 0.5,
                               stats_at(p[4]), PointwiseId::relu};
    a.branch_stats = stats_at(p[5]), a.sum_stats = stats_at(p[6]);
    return [&b, a] { b.residual_forward(a); };
  };
  KernelCase& backward = add("residual_backward_stats", "relu", "residual", "residual_backward", "backward");
  backward.work = arrays(4, 2, 2, more);
  backward.bind = [t](Backend& b, const Work& w, Pointers p) -> LaunchOnce {
    kernels::ResidualBackward a{t, w.operands[0].elements, p[1], p[2], GradMode::overwrite, p[3], GradMode::overwrite,
                                static_cast<kernels::Gates*>(p[4]), 0.5, stats_at(p[5]), PointwiseId::relu, p[0]};
    a.dsum_stats = stats_at(p[6]), a.dbranch_stats = stats_at(p[7]);
    return [&b, a] { b.residual_backward(a); };
  };
}

void CaseList::residual() {
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

void CaseList::scalars() {
  const DType t = t_;
  const std::vector<Operand> numbers_of_one(4, numbers(arithmetic_type(t), 1));
  KernelCase& forward = add("scalar_forward", "", "scalar", "scalar_forward", "forward");
  forward.work = arrays(2, 1, 1, numbers_of_one);
  forward.bind = [t](Backend& b, const Work& w, Pointers p) -> LaunchOnce {
    return [&b, a = kernels::ScalarForward{t, w.operands[0].elements, p[0], p[1], p[2], p[3]}] {
      b.scalar_forward(a);
    };
  };
  KernelCase& backward = add("scalar_backward", "", "scalar", "scalar_backward", "backward");
  backward.work = arrays(3, 2, 1, numbers_of_one);
  backward.bind = [t](Backend& b, const Work& w, Pointers p) -> LaunchOnce {
    return [&b, a = kernels::ScalarBackward{t, w.operands[0].elements, p[0], p[1], p[2], GradMode::overwrite,
                                            p[3], p[4], p[5]}] { b.scalar_backward(a); };
  };
}

// What stands for two operations of the lists above, in one pass.
void CaseList::fusions() {
  const DType t = t_;
  ops::All::for_each([&]<class Op>() {
    const std::string op(Op::name);
    const double saved = Op::id == PointwiseId::identity ? 0 : 1;
    const auto work = [t, b = bytes_](std::size_t arrays, double reads) {
      return [=](std::size_t size) {
        Work w = matrix(size, kColumns);
        w.operands.assign(arrays, numbers(t, elements(w)));
        for (int i = 0; i < 2; ++i) w.operands.push_back(numbers(arithmetic_type(t), w.columns));
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
    if (Op::id == PointwiseId::relu) {  // one operation stands for all that can be measured
      const auto with_sinks = [work](std::size_t arrays, double reads) {
        return [=, inner = work(arrays, reads)](std::size_t size) {
          Work w = inner(size);
          for (int i = 0; i < 2; ++i) w.operands.push_back(statistics());
          return w;
        };
      };
      KernelCase& seen = add("bias_forward_stats", "", "fusion", "bias_activation_forward", "forward");
      seen.work = with_sinks(2, 1);
      seen.bind = [t](Backend& b, const Work& w, Pointers p) -> LaunchOnce {
        return [&b, a = kernels::BiasActivationForward{Op::id, t, w.rows, w.columns, p[0], p[2], p[1], stats_at(p[4]),
                                                       stats_at(p[5])}] { b.bias_activation_forward(a); };
      };
      KernelCase& seen_back = add("bias_backward_stats", "", "fusion", "bias_activation_backward", "backward");
      seen_back.work = with_sinks(3, 2);
      seen_back.bind = [t](Backend& b, const Work& w, Pointers p) -> LaunchOnce {
        return [&b, a = kernels::BiasActivationBackward{Op::id, t, w.rows, w.columns, p[0], nullptr, p[1], p[2], p[4],
                                                        GradMode::overwrite, stats_at(p[5]), stats_at(p[6])}] {
          b.bias_activation_backward(a);
        };
      };
    }
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

}  // namespace gradflow::app::cases
