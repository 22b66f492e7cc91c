// The scalar columns of a LayerRow by name: one table for report.json, layers.csv and whoever reads them.
#pragma once

#include <span>
#include <string_view>

#include "apps/study/results.h"

namespace gradflow::app {

struct LayerColumn {
  std::string_view name;
  double LayerRow::*value;
};

// In the order of the CSV file.
std::span<const LayerColumn> layer_columns();

// "does_not_learn", and back; the second throws UserError on any other text.
std::string_view verdict_name(VerdictKind kind);
VerdictKind verdict_kind(std::string_view name);

}  // namespace gradflow::app
