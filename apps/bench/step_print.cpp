// The benchmark's result as text and JSON.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <nlohmann/json.hpp>

#include "apps/bench/step.h"
#include "apps/bench/step_clock.h"
#include "apps/common/text_table.h"
#include "apps/report/json.h"
#include "gradflow/engine/version.h"

namespace gradflow::app {
namespace {

using Json = nlohmann::ordered_json;

double ms(double seconds) { return 1e3 * seconds; }

double per_second(double amount, double seconds) { return seconds > 0 ? amount / seconds : 0; }

std::string timing_row(const char* name, const Timing& t) {
  return fmt::format("{:<16} {:>10.3f} ms {:>10.3f} ms {:>10.3f} ms   {} x {}\n", name, ms(t.median),
                     ms(t.minimum), ms(t.maximum), t.samples.size(), t.steps);
}

TextTable launch_table(const std::string& title, const std::vector<LaunchTiming>& rows, const StepResult& r) {
  TextTable table({{title, true, 16},
                   {"count"},
                   {"ms"},
                   {"%"},
                   {"floor"},
                   {"GFLOP/s"},
                   {"% of peak"},
                   {"GB/s"},
                   {"% of triad"}});
  for (const LaunchTiming& t : rows) {
    const double flops = per_second(t.cost.flops, t.seconds), bytes = per_second(t.cost.bytes, t.seconds);
    table.add({t.name, fmt::format("{}", t.launches), fmt::format("{:.3f}", ms(t.seconds)),
               fmt::format("{:.1f}", 100 * per_second(t.seconds, r.launch_seconds)),
               fmt::format("{:.3f}", ms(t.floor)),
               fmt::format("{:.1f}", 1e-9 * flops),
               fmt::format("{:.0f}", 100 * per_second(flops, r.ceilings.matmul_flops)),
               fmt::format("{:.1f}", 1e-9 * bytes),
               fmt::format("{:.0f}", 100 * per_second(bytes, r.ceilings.triad_bytes))});
  }
  return table;
}

Json json_of(const Timing& t) {
  Json samples = Json::array();
  for (const double s : t.samples) samples.push_back(ms(s));
  return {{"median_ms", ms(t.median)},
          {"min_ms", ms(t.minimum)},
          {"max_ms", ms(t.maximum)},
          {"steps_per_sample", t.steps},
          {"samples_ms", samples}};
}

Json json_of(const std::vector<LaunchTiming>& rows) {
  Json list = Json::array();
  for (const LaunchTiming& t : rows) {
    list.push_back({{"name", t.name},
                    {"group", t.group},
                    {"launches", t.launches},
                    {"ms", ms(t.seconds)},
                    {"floor_ms", ms(t.floor)},
                    {"bytes", t.cost.bytes},
                    {"flops", t.cost.flops},
                    {"gflops_per_second", 1e-9 * per_second(t.cost.flops, t.seconds)},
                    {"gbytes_per_second", 1e-9 * per_second(t.cost.bytes, t.seconds)}});
    if (!t.description.empty()) list.back()["description"] = t.description;
  }
  return list;
}

Json json_of(const StepMemory& m, std::optional<std::size_t> taken) {
  return {{"total_bytes", m.total()},
          {"taken_bytes", taken ? Json(*taken) : Json()},
          {"arena_bytes", m.arena},
          {"arena_bytes_without_reuse", m.arena_without_reuse},
          {"parameter_bytes", m.parameters},
          {"parameter_copy_bytes", m.copies},
          {"state_bytes", m.states},
          {"moment_bytes", m.moments}};
}

std::string memory_lines(const StepMemory& m, std::optional<std::size_t> taken, bool two_networks) {
  const auto sized = [](std::size_t bytes) { return bytes_text(static_cast<double>(bytes)); };
  std::string out = fmt::format(
      "memory: {}: arena {} ({} without reuse), parameters {}{}, moments {}, states {}\n", sized(m.total()),
      sized(m.arena), sized(m.arena_without_reuse), sized(m.parameters),
      m.copies ? fmt::format(", bf16 copies {}", sized(m.copies)) : "", sized(m.moments), sized(m.states));
  if (taken)
    out += fmt::format("the device has given away {} since it was opened: to {}, the data and the vendors' libraries\n", sized(*taken),
                       two_networks ? "this network, the one without probes" : "this network");
  return out;
}

std::string layers_text(const StepOptions& o, const StepResult& r) {
  if (r.run_layers < r.own_layers) return fmt::format("{} layers, fused to {}", r.own_layers, r.run_layers);
  return fmt::format("{} layers, none fused{}", r.own_layers, o.no_fuse ? " (--no-fuse)" : "");
}

// How vendors' libraries run the launches of which they tell it.
std::string descriptions_text(const std::vector<LaunchTiming>& launches) {
  std::string out;
  for (const LaunchTiming& t : launches)
    if (!t.description.empty()) out += fmt::format("  {} ({:.3f} ms): {}\n", t.name, ms(t.seconds), t.description);
  return out.empty() ? out : "\nhow the libraries run them\n" + out;
}

// All, or the eight slowest; `what` is "layer" or "launch".
std::string rows_text(const char* what, std::vector<LaunchTiming> rows, const StepResult& r, bool all,
                      std::size_t width) {
  constexpr std::size_t kFew = 8;
  if (all || rows.size() <= kFew) return launch_table(fmt::format("by {}", what), rows, r).text(width);
  std::ranges::stable_sort(rows, std::greater(), &LaunchTiming::seconds);
  rows.resize(kFew);
  return launch_table(fmt::format("slowest {} (--launches: all)", what), rows, r).text(width);
}

}  // namespace

std::string step_text(const StepOptions& o, const StepResult& r, bool all_launches, std::size_t width) {
  std::string out = fmt::format(
      "{}, {} parameters, {} {}, batch {}, {}, optimizer {}, probes {}\n{}\n{} {}, {}\ngradflow {} ({}), {}\n\n",
      o.network.model, r.parameters, storage_text(parse_dtype(o.network.precision.dtype)), o.network.data, o.network.batch, r.precision,
      o.optimizer, o.probes ? fmt::format("all ({})", r.probes) : "none", layers_text(o, r), r.device,
      r.device_model, r.libraries, version(), git_revision(), build_summary());
  out += fmt::format("{:<16} {:>13} {:>13} {:>13}   samples x steps, by {}\n", "", "median", "min", "max", r.clock);
  out += timing_row("step", r.step);
  if (o.probes) {
    out += timing_row("without probes", r.step_without_probes);
    const double plain = r.step_without_probes.median, best = r.step_without_probes.minimum;
    out += fmt::format("probes add       {:>11.1f} %  {:>11.1f} %\n", 100 * (r.step.median / plain - 1),
                       100 * (r.step.minimum / best - 1));
  }
  if (!r.disturbance.empty()) out += fmt::format("note: {}\n", r.disturbance);
  if (!std::isfinite(r.loss))
    out += "note: the loss is not finite, so this network did not train: its timing may mislead\n";
  out += fmt::format("\n{:.0f} {} (by the median)\n", per_second(static_cast<double>(o.network.batch), r.step.median),
                     r.images ? "images/s" : "samples/s");
  out += fmt::format("{:.3f} GFLOP a step: {:.1f} GFLOP/s; {} moved: {:.1f} GB/s\n", 1e-9 * r.cost.flops,
                     1e-9 * per_second(r.cost.flops, r.step.median), bytes_text(r.cost.bytes),
                     1e-9 * per_second(r.cost.bytes, r.step.median));
  out += fmt::format(
      "measured here: matrix product {:.1f} GFLOP/s, triad {:.1f} GB/s (data in cache can be faster)\n",
      1e-9 * r.ceilings.matmul_flops, 1e-9 * r.ceilings.triad_bytes);
  out += fmt::format("floor: {:.3f} ms, each launch at whichever of the two takes longer: the step takes {:.2f} x that\n",
                     ms(r.floor), per_second(r.step.median, r.floor));
  out += memory_lines(r.memory, r.taken, o.probes);
  out += '\n' + launch_table("by kind", r.groups, r).text(width);
  out += fmt::format(
      "\nLaunches sum to {:.3f} ms: of each the median of {} passes, one behind the other, by {} (around nothing:\n{:.4f} ms).\n\n",
      ms(r.launch_seconds), kLaunchPasses, r.clock, ms(r.nothing_seconds));
  out += rows_text("layer", r.layers, r, all_launches, width) + '\n';
  out += rows_text("launch", r.launches, r, all_launches, width);
  return all_launches ? out + descriptions_text(r.launches) : out;
}

std::string step_json(const StepOptions& o, const StepResult& r) {
  Json j = {{"schema", "gradflow-bench/1"}};
  j["context"] = {{"version", version()},
                  {"git_revision", git_revision()},
                  {"build", build_summary()},
                  {"device", r.device},
                  {"device_model", r.device_model},
                  {"libraries", r.libraries},
                  {"precision", r.precision},
                  {"clock", r.clock},
                  {"threads", r.threads},
                  {"model", o.network.model},
                  {"data", o.network.data},
                  {"batch", o.network.batch},
                  {"seed", o.network.seed},
                  {"dtype", o.network.precision.dtype},
                  {"optimizer", o.optimizer},
                  {"probes", r.probes},
                  {"graph", o.record},
                  {"fused", r.run_layers < r.own_layers},
                  {"layers", r.own_layers},
                  {"run_layers", r.run_layers},
                  {"parameters", r.parameters}};
  j.update(json_of(r.step));
  j["images_per_second"] = per_second(static_cast<double>(o.network.batch), r.step.median);
  j["flops"] = r.cost.flops;
  j["bytes"] = r.cost.bytes;
  j["gflops_per_second"] = 1e-9 * per_second(r.cost.flops, r.step.median);
  j["floor_ms"] = ms(r.floor);
  j["memory"] = json_of(r.memory, r.taken);
  j["first_loss"] = r.first_loss;
  j["loss"] = r.loss;
  if (o.probes) {
    j["step_without_probes"] = json_of(r.step_without_probes);
    j["probe_overhead"] = r.step.median / r.step_without_probes.median - 1;
  }
  j["ceilings"] = {{"matmul_gflops_per_second", 1e-9 * r.ceilings.matmul_flops},
                   {"triad_gbytes_per_second", 1e-9 * r.ceilings.triad_bytes}};
  j["load"] = {{"wall_seconds", r.load.wall_seconds},
               {"our_cores", r.load.our_cores},
               {"other_cores", r.load.other_cores ? Json(*r.load.other_cores) : Json()},
               {"preempted", r.load.preempted},
               {"disturbance", r.disturbance}};
  j["launch_times"] = {{"clock", r.clock},
                       {"passes", kLaunchPasses},
                       {"sum_ms", ms(r.launch_seconds)},
                       {"nothing_ms", ms(r.nothing_seconds)}};
  j["groups"] = json_of(r.groups);
  j["layers"] = json_of(r.layers);
  j["launches"] = json_of(r.launches);
  return json_text(j);
}

}  // namespace gradflow::app
