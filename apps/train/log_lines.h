// The lines of log.jsonl. They hold no clock times, so equal runs write equal logs.
//
//   {"event":"start","model":...}                                       once
//   {"event":"step","step":1,"epoch":0.0021,"loss":2.3,"accuracy":0.1,"learning_rate":0.1}
//   {"event":"held_out","step":468,"epoch":1,"loss":0.5,"accuracy":0.82,"best":true}
//   {"event":"layers","step":100,"layer":["stem.linear",...],"gradient":[...],...}   with --probe-every
//   {"event":"nonfinite","step":37,"first_step":36,"layer":"block03.linear","tensor":"update of ..."}
#pragma once

#include <cstdint>
#include <optional>

#include "apps/common/evaluator.h"
#include "apps/common/nonfinite.h"
#include "apps/train/session.h"
#include "gradflow/engine/json_lines.h"

namespace gradflow::app {

JsonLine start_line(const Session& session);
JsonLine step_line(const Session& session, std::int64_t step, const kernels::LossResult& result);
JsonLine held_out_line(const Session& session, std::int64_t step, const Evaluation& evaluation, bool best);

// Euclidean norms by weight layer: of the pre-activation stream, the gradient arriving there, the weight, its
// gradient and its update in this step.
JsonLine layers_line(Session& session, std::int64_t step);

JsonLine nonfinite_line(std::int64_t step, std::int64_t first_step, const std::optional<NonFinite>& where);

}  // namespace gradflow::app
