#include "gradflow/engine/schedule.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numbers>

#include "gradflow/engine/spec_text.h"
#include "gradflow/engine/text.h"
#include "gradflow/kernels/error.h"

namespace gradflow {
namespace {

// From `a` at t = 0 to `b` at t = 1, level at both ends. The ends are met exactly.
double half_cosine(double a, double b, double t) {
  if (t >= 1) return b;
  return b + (a - b) * 0.5 * (1 + std::cos(std::numbers::pi * t));
}

}  // namespace

Schedule::Schedule(std::string_view spec) {
  constexpr std::int64_t kMaxSteps = std::int64_t{1} << 53;  // beyond it a double cannot tell steps apart
  SpecReader reader(spec, "schedule");
  text_ = reader.text();
  if (reader.name() == "constant") {
    kind_ = Kind::constant;
  } else if (reader.name() == "step") {
    kind_ = Kind::step;
    const bool every = reader.has("every"), at = reader.has("at");
    every_ = static_cast<std::uint64_t>(reader.get_int("every", 0, 1, kMaxSteps));
    for (std::int64_t step : reader.get_int_list("at", {}, 1, kMaxSteps))
      at_.push_back(static_cast<std::uint64_t>(step));
    if (std::adjacent_find(at_.begin(), at_.end(), std::greater_equal<>()) != at_.end())
      reader.reject("at", "ascending");
    factor_ = reader.get_double("factor", 0.1, 0.0, 1e6);
    if (every == at) reader.reject("expected either 'every' or 'at'");
  } else if (reader.name() == "cosine") {
    kind_ = Kind::cosine;
    final_ = reader.get_double("final", 0.0, 0.0, 1.0);
  } else if (reader.name() == "one-cycle") {
    kind_ = Kind::one_cycle;
    peak_at_ = reader.get_double("peak_at", 0.3, 0.0, 1.0);
    start_ = reader.get_double("start", 0.04, 0.0, 1.0);
    final_ = reader.get_double("final", 0.0, 0.0, 1.0);
  } else {
    throw_unknown_name("schedule", spec, reader.name(), {"constant", "step", "cosine", "one-cycle"});
  }
  warmup_ = static_cast<std::uint64_t>(reader.get_int("warmup", 0, 0, kMaxSteps));
  const bool from_given = reader.has("warmup_from");
  warmup_from_ = reader.get_double("warmup_from", 0.0, 0.0, 1.0);
  warmup_flat_ = reader.has("warmup_at");
  if (from_given && warmup_flat_) reader.reject("expected either 'warmup_from', a rise, or 'warmup_at', a flat stretch");
  if (warmup_flat_) warmup_from_ = reader.get_double("warmup_at", 1.0, 0.0, 1.0);
  if (from_given && warmup_ == 0) reader.reject("'warmup_from' needs 'warmup'");
  if (warmup_flat_ && warmup_ == 0) reader.reject("'warmup_at' needs 'warmup'");
  reader.finish();
}

void Schedule::check_length(std::uint64_t total_steps) const {
  if (total_steps == 0) throw UserError(fmt::format("schedule {}: the run has no steps", quote(text_)));
  if (warmup_ >= total_steps)
    throw UserError(fmt::format("schedule {}: a warm-up of {} steps does not fit into a run of {}",
                                quote(text_), warmup_, total_steps));
}

bool Schedule::takes_effect(std::uint64_t total_steps) const {
  return kind_ != Kind::step || (at_.empty() ? every_ : at_.front()) < total_steps;
}

double Schedule::learning_rate(std::uint64_t step, std::uint64_t total_steps, double base) const {
  if (!(std::isfinite(base) && base >= 0))
    throw UserError(fmt::format("the learning rate must be a finite number of at least 0, not {}", base));
  check_length(total_steps);
  if (step < warmup_) {
    if (warmup_flat_) return base * warmup_from_;
    const double share = static_cast<double>(step + 1) / static_cast<double>(warmup_);
    return base * (warmup_from_ + (1 - warmup_from_) * share);
  }
  // How much of the run behind the warm-up has passed.
  const double passed =
      std::min(1.0, static_cast<double>(step - warmup_) / static_cast<double>(total_steps - warmup_));
  switch (kind_) {
    case Kind::constant: return base;
    case Kind::step: {
      const auto drops =
          every_ != 0
              ? step / every_
              : static_cast<std::uint64_t>(std::upper_bound(at_.begin(), at_.end(), step) - at_.begin());
      return base * std::pow(factor_, static_cast<double>(drops));
    }
    case Kind::cosine: return base * half_cosine(1, final_, passed);
    case Kind::one_cycle:
      return base * (passed < peak_at_
                         ? half_cosine(start_, 1, passed / peak_at_)
                         : half_cosine(1, final_, peak_at_ < 1 ? (passed - peak_at_) / (1 - peak_at_) : 0));
  }
  throw InternalError("unknown schedule");
}

}  // namespace gradflow
