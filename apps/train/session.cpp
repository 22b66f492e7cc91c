#include "apps/train/session.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "apps/common/network.h"
#include "apps/common/precision.h"
#include "apps/study/layer_probes.h"
#include "gradflow/engine/device.h"
#include "gradflow/engine/file.h"
#include "gradflow/engine/spec_text.h"
#include "gradflow/engine/text.h"
#include "gradflow/engine/weights.h"
#include "gradflow/kernels/error.h"

namespace gradflow::app {
namespace {

namespace fs = std::filesystem;

// Two data sets with the same text are the same if these agree: mean and deviation are exact sums over
// every pixel.
std::string fingerprint(const Dataset& d) {
  return fmt::format("{} + {} samples of {}x{}x{}, {} classes, mean {}, 1/deviation {}", d.train.count(),
                     d.test.count(), d.shape.height, d.shape.width, d.shape.channels, d.classes, d.mean,
                     d.inv_std);
}

std::string device_text(const Backend& device) {
  const auto& info = device.info();
  return fmt::format("{} ({}, {}, {})", info.name, info.model, info.libraries, info.precision);
}

const std::string* stored(const Checkpoint& checkpoint, const char* key) {
  const auto found = checkpoint.info().extra.find(key);
  return found == checkpoint.info().extra.end() ? nullptr : &found->second;
}

std::optional<Best> stored_best(const Checkpoint& checkpoint) {
  const std::string *step = stored(checkpoint, "best_step"), *accuracy = stored(checkpoint, "best_accuracy"),
                    *loss = stored(checkpoint, "best_loss");
  Best best;
  if (!step || !accuracy || !loss) return std::nullopt;
  if (!parse_int(*step, best.step) || !parse_double(*accuracy, best.held_out.accuracy) ||
      !parse_double(*loss, best.held_out.loss))
    throw UserError(fmt::format("{} is damaged: what it says of the best held-out result are no numbers",
                                checkpoint.source()));
  return best;
}

Checkpoint open_checkpoint(const TrainOptions& o) {
  if (o.out.empty()) throw UserError("--resume needs --out, the folder of the run to go on with");
  const fs::path path = fs::path(o.out) / "last.safetensors";
  std::error_code ignored;
  if (!fs::exists(path, ignored))
    throw UserError(fmt::format("nothing to resume: there is no {}; to begin a run there, leave out --resume",
                                quote(path.string(), 400)));
  return Checkpoint(path);
}

void set_length(Session& s) {
  const TrainSettings& settings = s.settings;
  s.steps_per_epoch = static_cast<std::int64_t>(s.order->steps_per_epoch());
  if (settings.epochs > std::numeric_limits<std::int64_t>::max() / s.steps_per_epoch)
    throw UserError(fmt::format("--epochs {}: more steps than can be counted", settings.epochs));
  s.total_steps = settings.epochs > 0 ? settings.epochs * s.steps_per_epoch : settings.steps;
  settings.schedule.check_length(static_cast<std::uint64_t>(s.total_steps));
}

// A longer or shorter run may change the rates of steps that are already done; then the whole would be no
// run that anybody can repeat.
void check_length_change(const Session& s, const Checkpoint& checkpoint) {
  if (s.total_steps < s.first_step)
    throw UserError(fmt::format("cannot resume for {} steps in all: the checkpoint is at step {} already",
                                s.total_steps, s.first_step));
  std::int64_t before = 0;
  const std::string* text = stored(checkpoint, "total_steps");
  if (!text || !parse_int(*text, before) || before < 1)
    throw UserError(fmt::format("{} was not written by `gradflow train`: its 'total_steps' is missing or no count",
                                checkpoint.source()));
  if (before == s.total_steps) return;
  const auto rate = [&](std::int64_t step, std::int64_t total) {
    return s.settings.schedule.learning_rate(static_cast<std::uint64_t>(step),
                                             static_cast<std::uint64_t>(total), 1);
  };
  for (std::int64_t step = 0; step < s.first_step; ++step)
    if (rate(step, before) != rate(step, s.total_steps))
      throw UserError(
          fmt::format("cannot resume for {} steps in all: schedule {} was laid out for {}; leave out "
                      "--epochs and --steps",
                      s.total_steps, quote(s.settings.schedule.text()), before));
}

// An evaluation may take as much memory as a training step, and this much anyway.
constexpr std::size_t kEvaluationBytes = std::size_t{256} << 20;

// What evaluation, workspaces and libraries may still want when the data are on the device.
constexpr std::size_t kReserve = std::size_t{256} << 20;

void open_feeds(Session& s, bool stream) {
  const FeedPlacement train = stream ? FeedPlacement::streamed
                                     : Feed::choose(*s.device, s.data.train, kReserve + s.data.test.image_bytes());
  s.feed = std::make_unique<Feed>(*s.device, s.data, s.data.train, s.settings.augmentation, train);
  s.test_feed = std::make_unique<Feed>(*s.device, s.data, s.data.test, s.settings.augmentation,
                                       Feed::choose(*s.device, s.data.test, kReserve));
  if (train == FeedPlacement::streamed && !stream)
    s.notices.push_back(fmt::format("note: the {} training images do not fit on {} beside the network; batches are handed over one by one",
                                    s.data.train.count(), s.device->info().name));
  if (train == FeedPlacement::streamed && !s.data.train.in_files)
    s.notices.push_back("note: the training images are held in memory; only CIFAR's files and IDX files that are not compressed (gunzip) "
                        "are read piece by piece");
}

void build_network(Session& s, const TrainOptions& o) {
  const ModelShape shape = shape_of(s.data, s.settings.batch, s.settings.dtype);
  s.model = build_model(s.settings.model, shape);
  s.parameters = std::make_unique<ParameterStore>(*s.device, s.model.graph);
  s.optimizer = std::make_unique<Optimizer>(*s.parameters, s.settings.optimizer);
  s.memory_limit = o.memory_limit;
  s.executor = make_executor(s.model, shape, *s.parameters, s.optimizer.get(),
                             {.fuse = s.fuse, .memory_limit = o.memory_limit});
  s.fused = s.executor->graph().nodes().size() < s.model.graph.nodes().size();
  open_feeds(s, o.stream);
  s.feed_to(*s.executor);
  s.evaluator = std::make_unique<Evaluator>(s.settings.model, s.data, *s.parameters, *s.test_feed, Evaluator::kAll, false,
                                            std::max(s.executor->plan().arena_bytes, kEvaluationBytes), s.fuse);
}

void restore(Session& s, const Checkpoint& checkpoint) {
  const std::string* data = stored(checkpoint, "data_fingerprint");
  if (!data || *data != fingerprint(s.data))
    throw UserError(fmt::format("the data {} are not those this run was begun with: {} now, {} then",
                                quote(s.data.name), fingerprint(s.data), data ? *data : "unknown"));
  checkpoint.restore(*s.parameters, s.optimizer.get());
  s.best = stored_best(checkpoint);
  const std::string* device = stored(checkpoint, "device");
  if (device && *device != device_text(*s.device))
    s.notices.push_back(fmt::format("note: begun on {}, going on with {}; results may differ in the last bits",
                                    *device, device_text(*s.device)));
}

}  // namespace

void Session::feed_to(Executor& into) {
  if (feed->placement() == FeedPlacement::resident)
    into.set_input_launches(
        [from = feed.get(), x = into.input("x"), labels = into.input("labels")] { from->gather(x, labels); });
}

void Session::load_batch(std::int64_t step, const Executor& into) {
  const auto indices = order->batch(static_cast<std::uint64_t>(step));
  if (feed->placement() == FeedPlacement::resident) {  // a part of the step, recorded with it
    feed->stage(indices, settings.seed, static_cast<std::uint64_t>(step));
    return;
  }
  feed->load_augmented(indices, into.input("x"), into.input("labels"), settings.seed,
                       static_cast<std::uint64_t>(step));
  if (step + 1 >= total_steps) return;
  const auto next = static_cast<std::uint64_t>(step + 1);
  feed->announce(order->batch(next), settings.seed, next);
}

Executor& Session::probed() {
  if (!probed_) {
    const std::size_t used = executor->plan().arena_bytes;  // which keeps its own
    probed_ = make_executor(model, shape_of(data, settings.batch, settings.dtype), *parameters, optimizer.get(),
                            {.probes = LayerProbes(model, true).requests(),
                             .fuse = fuse,
                             .memory_limit = memory_limit == kNoMemoryLimit ? memory_limit : memory_limit - used});
    feed_to(*probed_);
  }
  return *probed_;
}

Session::Discovery Session::find_first_nonfinite(const Snapshot& snapshot, std::int64_t from, std::int64_t to) {
  executor.reset();  // their memory is wanted now
  probed_.reset();
  snapshot.restore(*parameters, optimizer.get());
  Executor watched(model.graph, *parameters, optimizer.get(),
                   ExecutorOptions{.probes = all_scalar_probes(model.graph, true, true)});
  watched.set_probing(Probing::scalars);
  feed_to(watched);
  Discovery d;
  for (d.step = from + 1; d.step <= to; ++d.step) {
    load_batch(d.step - 1, watched);
    optimizer->set_step(d.step, learning_rate(d.step - 1));
    watched.step();
    d.loss_too = !std::isfinite(watched.take_loss().loss_sum);
    d.tensor = first_nonfinite(model.graph, watched.options().probes, watched.read_history());
    if (d.tensor || d.loss_too) return d;
  }
  d.step = to;
  return d;
}

double Session::learning_rate(std::int64_t step) const {
  return settings.schedule.learning_rate(static_cast<std::uint64_t>(step),
                                         static_cast<std::uint64_t>(total_steps),
                                         settings.optimizer.learning_rate);
}

void Session::save(const fs::path& path, std::int64_t step) const {
  CheckpointInfo info{.model = settings.model.text,
                      .data = settings.data,
                      .schedule = settings.schedule.text(),
                      .step = step,
                      .batch = settings.batch,
                      .seed = settings.seed,
                      .extra = settings_metadata(settings)};
  info.extra["total_steps"] = std::to_string(total_steps);
  info.extra["data_fingerprint"] = fingerprint(data);
  info.extra["device"] = device_text(*device);
  if (best) {
    info.extra["best_step"] = std::to_string(best->step);
    info.extra["best_accuracy"] = fmt::format("{}", best->held_out.accuracy);
    info.extra["best_loss"] = fmt::format("{}", best->held_out.loss);
  }
  save_checkpoint(path, *parameters, optimizer.get(), info);
}

Session open_session(const TrainOptions& o) {
  check_device_name(o.device);
  if (o.resume && !o.weights.empty())
    throw UserError("--weights is for the beginning of a run; --resume takes everything from the checkpoint");
  Session s;
  s.out = o.out;
  s.device_name = o.device;
  s.resumed = o.resume;
  // A run that was watched goes on being watched: its settings are those of its beginning.
  s.tensorboard = o.tensorboard || (o.resume && std::filesystem::is_directory(s.out / "tensorboard"));
  s.tf32 = o.tf32;
  s.fuse = !o.no_fuse;
  if (o.out.empty() && !o.resume) {  // what would be kept nowhere
    if (o.tensorboard) throw UserError("--tensorboard needs --out, the folder of the run");
    if (o.checkpoint_every) throw UserError("--checkpoint-every needs --out, the folder of the run");
    if (o.probe_every.value_or(0) > 0) throw UserError("--probe-every needs --out, the folder of the run");
  }
  std::optional<Checkpoint> checkpoint;
  if (o.resume) checkpoint.emplace(open_checkpoint(o));
  s.settings = checkpoint ? resumed_settings(o, *checkpoint) : fresh_settings(o);
  s.first_step = checkpoint ? checkpoint->info().step : 0;
  std::error_code ignored;
  if (!o.resume && !o.out.empty() && fs::exists(s.last_checkpoint(), ignored))
    throw UserError(
        fmt::format("{} holds a run already: add --resume to go on with it, or choose another folder",
                    quote(o.out, 400)));

  check_batch(s.settings.model, s.settings.batch);
  s.data = open_dataset(s.settings.data);
  s.order = std::make_unique<BatchOrder>(s.data.train.count(), static_cast<std::size_t>(s.settings.batch),
                                         s.settings.seed);
  set_length(s);
  if (checkpoint) check_length_change(s, *checkpoint);
  if (!s.settings.schedule.takes_effect(static_cast<std::uint64_t>(s.total_steps)))
    s.notices.push_back(fmt::format("note: the run ends at step {}, before schedule {} changes the rate", s.total_steps,
                                    quote(s.settings.schedule.text())));
  s.device = open_network_device(o.device, o.tf32);
  build_network(s, o);
  if (checkpoint)
    restore(s, *checkpoint);
  else
    s.parameters->initialize(s.settings.model.initializer(), s.settings.seed);
  if (!o.weights.empty()) load_weights(o.weights, *s.parameters);
  if (!o.out.empty()) ensure_output_directory(s.out);
  return s;
}

}  // namespace gradflow::app
