#include "apps/report/columns.h"

#include <array>
#include <string>
#include <utility>

#include "gradflow/kernels/error.h"

namespace gradflow::app {
namespace {

constexpr std::array<LayerColumn, 20> kColumns = {{
    {"gradient_norm", &LayerRow::gradient_norm},
    {"gradient_norm_low", &LayerRow::gradient_norm_low},
    {"gradient_norm_high", &LayerRow::gradient_norm_high},
    {"predicted_norm", &LayerRow::predicted_norm},
    {"factor", &LayerRow::factor},
    {"weight_gradient_norm", &LayerRow::weight_gradient_norm},
    {"weight_norm", &LayerRow::weight_norm},
    {"update_ratio", &LayerRow::update_ratio},
    {"effective_rate", &LayerRow::effective_rate},
    {"z_rms", &LayerRow::z_rms},
    {"activation_mean", &LayerRow::activation_mean},
    {"activation_std", &LayerRow::activation_std},
    {"saturated", &LayerRow::saturated},
    {"dead", &LayerRow::dead},
    {"gradient_zeros", &LayerRow::gradient_zeros},
    {"gradient_denormals", &LayerRow::gradient_denormals},
    {"nonfinite", &LayerRow::nonfinite},
    {"skip_norm", &LayerRow::skip_norm},
    {"branch_norm", &LayerRow::branch_norm},
    {"skip_branch_cosine", &LayerRow::skip_branch_cosine},
}};

constexpr std::array<std::pair<VerdictKind, std::string_view>, 7> kVerdicts = {{
    {VerdictKind::vanishes, "vanishes"},
    {VerdictKind::explodes, "explodes"},
    {VerdictKind::healthy, "healthy"},
    {VerdictKind::dead, "dead"},
    {VerdictKind::does_not_learn, "does_not_learn"},
    {VerdictKind::diverged, "diverged"},
    {VerdictKind::not_measured, "not_measured"},
}};

}  // namespace

std::span<const LayerColumn> layer_columns() { return kColumns; }

std::string_view verdict_name(VerdictKind kind) {
  for (const auto& [value, name] : kVerdicts) {
    if (value == kind) return name;
  }
  throw InternalError("a verdict of unknown kind " + std::to_string(static_cast<int>(kind)));
}

VerdictKind verdict_kind(std::string_view name) {
  for (const auto& [value, text] : kVerdicts) {
    if (text == name) return value;
  }
  throw UserError("unknown verdict '" + std::string(name) +
                  "'; known are vanishes, explodes, healthy, dead, does_not_learn, diverged, not_measured");
}

}  // namespace gradflow::app
