// A planned step as text, JSON and a drawing.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "apps/plan/operands.h"
#include "gradflow/layers/models.h"

namespace gradflow::app {

struct PlannedStep {
  Model model;
  std::int64_t batch = 0;
  std::string device, precision;
  PlanOptions options;
  Plan plan;
  std::vector<LaunchOperands> operands;  // by launch
  // The step as it was before layers were fused; empty if nothing was, or was to be.
  struct Unfused {
    std::size_t layers = 0, launches = 0, arena_bytes = 0;
    double bytes_moved = 0;
  };
  std::optional<Unfused> unfused;
};

std::string plan_table(const PlannedStep& step, std::size_t width);
std::string plan_json(const PlannedStep& step);  // docs/PLAN_SCHEMA.md
// For graphviz: launches in order, an arrow from the launch that last wrote a buffer to each that reads it.
std::string plan_dot(const PlannedStep& step);

}  // namespace gradflow::app
