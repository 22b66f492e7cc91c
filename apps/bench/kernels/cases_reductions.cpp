// Cases of column sums, the loss and statistics.
#include <string>

#include "apps/bench/kernels/case_list.h"

namespace gradflow::app::cases {

void CaseList::matrices() {
  const DType t = t_;
  KernelCase& sum = add("column_sum", "", "reduction", "column_sum", "backward");
  sum.work = [t, b = bytes_](std::size_t size) {
    Work w = matrix(size, kColumns);
    w.operands = {numbers(t, elements(w)), numbers(arithmetic_type(t), w.columns)};
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
    w.operands = {numbers(arithmetic_type(t), w.columns), numbers(t, elements(w))};
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

void CaseList::loss() {
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

void CaseList::probes() {
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

}  // namespace gradflow::app::cases
