#include "apps/plan/command.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <memory>
#include <string>

#include "apps/common/network.h"
#include "apps/common/option_checks.h"
#include "apps/common/text_table.h"
#include "apps/plan/print.h"
#include "gradflow/engine/device.h"
#include "gradflow/engine/file.h"
#include "gradflow/engine/out_of_memory.h"

namespace gradflow::app {
namespace {

struct Options {
  std::string model, data, device = "cpu", probes = "none", json, dot;
  PrecisionOptions precision;
  std::int64_t batch = 128;
  std::uint64_t memory_limit = kNoMemoryLimit;
  bool no_reuse = false, no_fuse = false, inference = false;
};

// As the executor does.
void fuse(PlannedStep& step, Backend& device) {
  Graph fused = fused_for(step.model.graph, step.options.probes, device.is_host());
  if (fused.nodes().size() == step.model.graph.nodes().size()) return;
  const Plan before = make_plan(step.model.graph, step.options, device);
  PlannedStep::Unfused unfused{.layers = step.model.graph.nodes().size(), .launches = before.launches.size(),
                               .arena_bytes = before.arena_bytes, .bytes_moved = 0};
  for (const Launch& l : before.launches) unfused.bytes_moved += l.cost.bytes;
  step.unfused = unfused;
  step.model.graph = std::move(fused);
}

// The step at a batch of its own.
PlannedStep plan_step(const Options& o, const ModelSpec& spec, const ModelShape& shape, Backend& device) {
  PlannedStep step{.model = build_model(spec, shape),
                   .batch = shape.batch,
                   .device = device.info().name,
                   .precision = device.info().precision,
                   .options = {},
                   .plan = {},
                   .operands = {},
                   .unfused = std::nullopt};
  step.options.training = !o.inference;
  step.options.reuse = !o.no_reuse;
  // As the executor does with an optimizer on this device.
  if (!o.inference)
    step.options.update = device.is_host() ? UpdatePlacement::immediate : UpdatePlacement::at_end;
  if (o.probes == "all")
    step.options.probes = all_scalar_probes(step.model.graph, !o.inference, !o.inference);
  if (!o.no_fuse) fuse(step, device);
  step.plan = make_plan(step.model.graph, step.options, device);
  return step;
}

// Only a limit that was asked for: a plan of what would not fit here is worth seeing.
void check_limit(const Options& o, const PlannedStep& step, const ModelSpec& spec, ModelShape shape, Backend& device) {
  if (o.memory_limit == kNoMemoryLimit) return;
  const std::size_t parameters = step.plan.persistent_bytes();
  const std::size_t left = o.memory_limit > parameters ? o.memory_limit - parameters : 0;
  const Room room{left, fmt::format("{} are left of the limit of {} beside {} of parameters", memory_text(left),
                                    memory_text(o.memory_limit), memory_text(parameters))};
  with_batch_advice(
      o.batch, [&] { require_room(step.plan, room); },
      [&](std::int64_t batch) {
        shape.batch = batch;
        return plan_step(o, spec, shape, device).plan.arena_bytes;
      });
}

int run_plan(const Options& o) {
  const ModelSpec spec = parse_model(o.model);
  check_device_name(o.device);
  require_outputs({{"--json", o.json}, {"--dot", o.dot}});
  ModelShape shape{.batch = o.batch, .features = 784, .classes = 10,
                   .dtype = parse_dtype(o.precision.dtype), .image = {28, 28, 1}};
  if (!o.data.empty()) {
    shape = shape_of(outline_dataset(o.data), o.batch, shape.dtype);
  }
  const auto device = open_network_device(o.device, o.precision.tf32);
  PlannedStep step = plan_step(o, spec, shape, *device);
  check_limit(o, step, spec, shape, *device);
  step.operands = operands_of(step.model.graph, step.plan, step.options.probes);

  if (!o.json.empty()) write_file_atomically(o.json, plan_json(step));
  if (!o.dot.empty()) write_file_atomically(o.dot, plan_dot(step));
  if (o.json != "/dev/stdout" && o.dot != "/dev/stdout")
    fmt::print("{}", plan_table(step, terminal_width(stdout)));
  return 0;
}

}  // namespace

void add_plan(CLI::App& app, std::function<int()>& run) {
  CLI::App* command =
      app.add_subcommand("plan", "the planned step: every launch, its bytes, FLOP and memory");
  const auto o = std::make_shared<Options>();
  command->add_option("--model", o->model, "network, e.g. mlp:depth=50,act=tanh (below)")
      ->required()
      ->type_name("SPEC");
  command->add_option("--data", o->data, "decides input size and classes; without it 28x28 and 10")
      ->type_name("SPEC");
  command->add_option("--batch", o->batch, "samples of a step")
      ->check(whole_number(1, kMostSamples))
      ->type_name("N")
      ->capture_default_str();
  command->add_option("--device", o->device, "auto, cpu, cuda or cuda:N")
      ->type_name("D")
      ->capture_default_str();
  add_precision_options(*command, o->precision);
  command->add_option("--probes", o->probes, "none, or all scalar statistics of every tensor")
      ->check(one_of({"none", "all"}))
      ->type_name("none|all")
      ->capture_default_str();
  add_memory_limit(*command, o->memory_limit,
                   "refuse a step whose parameters and tensors take more, e.g. 6GiB, and say what batch fits");
  command->add_flag("--inference", o->inference, "plan a forward pass alone");
  command->add_flag("--no-reuse", o->no_reuse, "give every tensor memory of its own");
  add_no_fuse(*command, o->no_fuse);
  add_output_file(*command, "--json", o->json, "write the plan as JSON (docs/PLAN_SCHEMA.md), too; -: instead of the table");
  add_output_file(*command, "--dot", o->dot, "also write it as a graph for graphviz");
  command->footer("Models:\n" + std::string(model_help()) +
                  "\nExamples:\n"
                  "  gradflow plan --model mlp:depth=50,width=256\n"
                  "  gradflow plan --model resnet:depth=56 --data cifar10:DIR\n"
                  "  gradflow plan --model resnet50 --data synthetic:height=224,width=224,channels=3,classes=1000\n"
                  "  gradflow plan --model mlp:depth=20,skip=on,norm=bn --batch 64 | less\n"
                  "  gradflow plan --model mlp:depth=6 --dot step.dot && dot -Tsvg step.dot > step.svg\n"
                  "  gradflow plan --model mlp --json - | python3 -m json.tool");
  command->callback([&run, o] { run = [o] { return run_plan(*o); }; });
}

}  // namespace gradflow::app
