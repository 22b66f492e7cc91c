// The lines of log.jsonl. They hold no clock times, so equal runs write equal logs.
//
//   {"event":"start","model":...}                                       once
//   {"event":"step","step":1,"epoch":0.0021,"loss":2.3,"accuracy":0.1,"learning_rate":0.1}
//   {"event":"held_out","step":468,"epoch":1,"loss":0.5,"accuracy":0.82,"best":true}
//   {"event":"layers","step":100,"layer":["stem.linear",...],"gradient":[...],...}   see --probe-every
//   {"event":"nonfinite","step":37,"first_step":36,"layer":"block03.linear","tensor":"update of ..."}
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <vector>

#include "apps/common/evaluator.h"
#include "apps/common/nonfinite.h"
#include "apps/study/results.h"
#include "apps/train/session.h"
#include "gradflow/engine/json_lines.h"

namespace gradflow::app {

JsonLine start_line(const Session& session);
JsonLine step_line(const Session& session, std::int64_t step, const kernels::LossResult& result);
JsonLine held_out_line(const Session& session, std::int64_t step, const Evaluation& evaluation, bool best);

// What session.probed() read in a step, by weight layer.
std::vector<LayerRow> rows_of(const Model& model, const std::vector<ProbeReading>& readings);

// Of the same readings, by weight layer: Euclidean norms of the pre-activation stream, the gradient
// arriving there, the weight (before the update), its gradient and its update; what else a report shows, in the
// columns of docs/REPORT_SCHEMA.md, where it was measured; and the exponents of the gradient's elements.
JsonLine layers_line(Session& session, std::int64_t step, const std::vector<ProbeReading>& readings);

// Names and fields of those other columns.
struct MoreColumn {
  const char* name;
  double LayerRow::*value;
};
inline constexpr std::array<MoreColumn, 10> kMoreColumns = {{{"z_rms", &LayerRow::z_rms},
                                                             {"activation_mean", &LayerRow::activation_mean},
                                                             {"activation_std", &LayerRow::activation_std},
                                                             {"saturated", &LayerRow::saturated},
                                                             {"gradient_zeros", &LayerRow::gradient_zeros},
                                                             {"gradient_denormals", &LayerRow::gradient_denormals},
                                                             {"nonfinite", &LayerRow::nonfinite},
                                                             {"skip_norm", &LayerRow::skip_norm},
                                                             {"branch_norm", &LayerRow::branch_norm},
                                                             {"skip_branch_cosine", &LayerRow::skip_branch_cosine}}};

JsonLine nonfinite_line(std::int64_t step, std::int64_t first_step, const std::optional<NonFinite>& where);

}  // namespace gradflow::app
