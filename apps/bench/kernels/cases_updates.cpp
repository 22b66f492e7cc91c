// Cases of optimizer updates.
#include <algorithm>
#include <memory>

#include "apps/bench/kernels/case_list.h"

namespace gradflow::app::cases {

// All parameters in one launch: one tensor, and as many of different lengths as a deep network has.
void CaseList::updates() {
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

}  // namespace gradflow::app::cases
