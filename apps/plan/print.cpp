#include "apps/plan/print.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "apps/common/precision.h"
#include "apps/common/text_table.h"
#include "apps/report/json.h"
#include "gradflow/engine/index.h"
#include "gradflow/engine/version.h"

namespace gradflow::app {
namespace {

const Buffer& buffer_of(const PlannedStep& s, const Operand& o) { return s.plan.buffers[at(o.buffer)]; }

std::string type_mark(const PlannedStep& s, const Buffer& b) {
  const bool other = b.role != BufferRole::workspace && b.dtype != s.model.graph.dtype();
  return other ? fmt::format(":{}", name_of(b.dtype)) : "";
}

// "x@0 dw:f32@40000": a role, the type where it is not the network's, and where in the arena it lies.
std::string places(const PlannedStep& s, const std::vector<Operand>& operands) {
  std::string text;
  for (const Operand& o : operands)
    text += fmt::format("{}{}{}@{:x}", text.empty() ? "" : " ", o.role, type_mark(s, buffer_of(s, o)),
                        buffer_of(s, o).offset);
  return text;
}

Cost total_cost(const Plan& plan) {
  Cost sum;
  for (const Launch& l : plan.launches) sum.bytes += l.cost.bytes, sum.flops += l.cost.flops;
  return sum;
}

double share(std::size_t part, std::size_t whole) {
  return whole ? 100.0 * static_cast<double>(part) / static_cast<double>(whole) : 0;
}

std::string sized(std::size_t bytes) { return bytes_text(static_cast<double>(bytes)); }

std::string copies_text(const Plan& plan) {
  return plan.parameter_copy_bytes ? fmt::format(", bf16 copies {}", sized(plan.parameter_copy_bytes)) : "";
}

std::string fusion_line(const PlannedStep& s) {
  if (!s.unfused) return "";
  return fmt::format("fused          {} layers became {} (--no-fuse: {} launches, {} a step, arena {})\n", s.unfused->layers,
                     s.model.graph.nodes().size(), s.unfused->launches, bytes_text(s.unfused->bytes_moved),
                     sized(s.unfused->arena_bytes));
}

}  // namespace

std::string plan_table(const PlannedStep& s, std::size_t width) {
  TextTable table({{"#"},
                   {"layer", true, 12},
                   {"launch", true},
                   {"bytes"},
                   {"FLOP"},
                   {"reads", true, 12},
                   {"writes", true, 12}});
  for (std::size_t i = 0; i < s.plan.launches.size(); ++i) {
    const Launch& l = s.plan.launches[i];
    table.add({fmt::format("{}", i), subject_of(l, s.model.graph, s.options.probes), name_of(l.kind),
               bytes_text(l.cost.bytes), count_text(l.cost.flops), places(s, s.operands[i].reads),
               places(s, s.operands[i].writes)});
  }
  const Cost cost = total_cost(s.plan);
  const std::size_t plain = s.plan.bytes_without_reuse;
  return table.text(width) + fmt::format(
                                 "\nModel {}, batch {}, {} on {}: {}. An operand is role@offset: where it "
                                 "lies in the arena, in hexadecimal bytes; its type is named where it is not the "
                                 "network's.\n"
                                 "launches       {} ({} forward, {} behind them)\n"
                                 "{}"
                                 "traffic        {} and {}FLOP a step\n"
                                 "arena          {} ({} bytes)\n"
                                 "without reuse  {} ({} bytes): the arena is {:.0f} % of it\n"
                                 "parameters     {} ({} numbers){}, states {}, outside the arena\n",
                                 s.model.spec.text, s.batch, storage_text(s.model.graph.dtype()), s.device, s.precision,
                                 s.plan.launches.size(),
                                 s.plan.first_backward, s.plan.launches.size() - at(s.plan.first_backward),
                                 fusion_line(s), bytes_text(cost.bytes), count_text(cost.flops), sized(s.plan.arena_bytes),
                                 s.plan.arena_bytes, sized(plain), plain, share(s.plan.arena_bytes, plain),
                                 sized(s.plan.parameter_bytes), s.model.graph.parameter_count(), copies_text(s.plan),
                                 sized(s.plan.state_bytes));
}

std::string plan_json(const PlannedStep& s) {
  using Json = nlohmann::ordered_json;
  const Plan& plan = s.plan;
  const Cost cost = total_cost(plan);
  Json j = {{"schema", "gradflow-plan/1"},
            {"version", version()},
            {"git_revision", git_revision()},
            {"model", s.model.spec.text},
            {"batch", s.batch},
            {"device", s.device},
            {"dtype", name_of(s.model.graph.dtype())},
            {"precision", s.precision},
            {"training", s.options.training},
            {"reuse", s.options.reuse},
            {"fused", s.unfused.has_value()},
            {"arena_bytes", plan.arena_bytes},
            {"bytes_without_reuse", plan.bytes_without_reuse},
            {"parameter_bytes", plan.parameter_bytes},
            {"parameter_copy_bytes", plan.parameter_copy_bytes},
            {"parameter_count", s.model.graph.parameter_count()},
            {"state_bytes", plan.state_bytes},
            {"total_bytes_moved", cost.bytes},
            {"total_flops", cost.flops},
            {"first_backward", plan.first_backward},
            {"launches", Json::array()},
            {"buffers", Json::array()}};
  const auto operands = [](const std::vector<Operand>& list) {
    Json out = Json::array();
    for (const Operand& o : list) out.push_back({{"role", o.role}, {"buffer", o.buffer}});
    return out;
  };
  for (std::size_t i = 0; i < plan.launches.size(); ++i) {
    const Launch& l = plan.launches[i];
    j["launches"].push_back({{"layer", subject_of(l, s.model.graph, s.options.probes)},
                             {"kind", name_of(l.kind)},
                             {"type", l.node == kNobody ? "" : s.model.graph.node(l.node).layer->type()},
                             {"bytes", l.cost.bytes},
                             {"flops", l.cost.flops},
                             {"reads", operands(s.operands[i].reads)},
                             {"writes", operands(s.operands[i].writes)}});
  }
  for (const Buffer& b : plan.buffers)
    j["buffers"].push_back({{"name", b.name},
                            {"role", name_of(b.role)},
                            {"dtype", name_of(b.dtype)},
                            {"bytes", b.bytes},
                            {"offset", b.offset},
                            {"first_launch", b.begin},
                            {"last_launch", b.end},
                            {"storage", b.storage}});
  return json_text(j);
}

std::string plan_dot(const PlannedStep& s) {
  const auto color = [](LaunchKind kind) {
    return kind == LaunchKind::forward    ? "#cfe3f5"
           : kind == LaunchKind::backward ? "#f9dcc4"
           : kind == LaunchKind::update   ? "#d8ecd0"
                                          : "#e6e6e6";
  };
  const auto quoted = [](std::string_view text) {
    std::string out = "\"";
    for (const char c : text) {
      if (c == '"' || c == '\\') out += '\\';
      out += c;
    }
    return out + "\"";
  };
  std::string out =
      "digraph step {\n  rankdir=TB;\n  node [shape=box, style=filled, fontname=\"sans-serif\"];\n"
      "  edge [fontname=\"sans-serif\", fontsize=9];\n";
  out += fmt::format("  label={};\n", quoted(fmt::format("{}, batch {}: arena {}", s.model.spec.text, s.batch,
                                                         sized(s.plan.arena_bytes))));
  std::vector<int> last_writer(s.plan.buffers.size(), kNobody);
  for (std::size_t v = 0; v < s.model.graph.values().size(); ++v) {
    if (!s.model.graph.values()[v].is_input()) continue;
    out += fmt::format("  input{} [label={}, shape=ellipse];\n", v, quoted(s.model.graph.values()[v].name));
  }
  const auto input_of = [&](int buffer) {
    for (std::size_t v = 0; v < s.plan.value_buffer.size(); ++v)
      if (s.plan.value_buffer[v] == buffer && s.model.graph.values()[v].is_input())
        return static_cast<int>(v);
    return kNobody;
  };
  for (std::size_t i = 0; i < s.plan.launches.size(); ++i) {
    const Launch& l = s.plan.launches[i];
    out += fmt::format(
        "  launch{} [label={}, fillcolor=\"{}\"];\n", i,
        quoted(fmt::format("{} {}", subject_of(l, s.model.graph, s.options.probes), name_of(l.kind))),
        color(l.kind));
    for (const Operand& o : s.operands[i].reads) {
      const int writer = last_writer[at(o.buffer)];
      const int input = writer == kNobody ? input_of(o.buffer) : kNobody;
      if (writer == kNobody && input == kNobody) continue;
      out += fmt::format("  {}{} -> launch{} [label={}];\n", writer == kNobody ? "input" : "launch",
                         writer == kNobody ? input : writer, i,
                         quoted(fmt::format("{} {}", o.role, sized(buffer_of(s, o).bytes))));
    }
    for (const Operand& o : s.operands[i].writes) last_writer[at(o.buffer)] = static_cast<int>(i);
  }
  return out + "}\n";
}

}  // namespace gradflow::app
