#include "apps/train/train.h"

#include <fmt/format.h>

#include <chrono>
#include <cmath>
#include <ostream>
#include <streambuf>

#include "apps/common/nonfinite.h"
#include "apps/common/precision.h"
#include "apps/common/shell_words.h"
#include "apps/common/text_table.h"
#include "apps/report/write.h"
#include "apps/terminal/progress.h"
#include "apps/train/log_lines.h"
#include "apps/train/report.h"
#include "apps/train/session.h"
#include "apps/train/summary.h"
#include "apps/train/tensorboard.h"
#include "gradflow/engine/interrupt.h"
#include "gradflow/engine/text.h"

namespace gradflow::app {
namespace {

double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

class Trainer {
 public:
  Trainer(Session& session, std::ostream& out, const Terminal& terminal)
      : s_(session),
        style_(terminal.color),
        progress_(out, terminal, static_cast<double>(s_.total_steps), static_cast<double>(s_.first_step)) {}

  Outcome run() {
    const double start = now();
    print_header();
    open_log();
    Outcome outcome = loop();
    progress_.finish();
    outcome.seconds = now() - start;
    outcome.samples_per_second = samples_per_second();
    outcome.train_loss = last_loss_;
    outcome.held_out = last_evaluation_;
    if (!s_.out.empty()) {
      write_summary(s_.out / "summary.json", s_, outcome);
      log_.reset();
      if (const StudyResult study = study_of_run(s_, outcome); !study.networks.empty()) {
        write_report(study, s_.out / "report");
        if (outcome.status != "interrupted")  // whose message ends with a command to copy
          outcome.message += fmt::format("; the gradient by layer: {}", (s_.out / "report" / "report.html").string());
      }
    }
    return outcome;
  }

 private:
  Session& s_;
  Style style_;
  Progress progress_;
  std::optional<JsonLinesLog> log_;
  std::optional<TensorboardLog> tensorboard_;
  std::optional<double> last_loss_;
  std::optional<Evaluation> last_evaluation_;
  double shown_loss_ = 0, shown_accuracy_ = 0;  // means since the last evaluation
  std::int64_t shown_steps_ = 0;
  double train_seconds_ = 0;
  std::int64_t trained_steps_ = 0;

  // Steps between copies of the parameters in memory, to which a run goes back to find where a NaN came from.
  static constexpr std::int64_t kSnapshotEvery = 50;
  Snapshot snapshot_;
  std::int64_t snapshot_step_ = 0;

  static bool due(std::int64_t step, std::int64_t every) { return every > 0 && step % every == 0; }
  std::int64_t cadence(std::int64_t every) const { return every > 0 ? every : s_.steps_per_epoch; }

  bool is_probed(std::int64_t step) const {
    const std::int64_t every = s_.settings.probe_every;
    return !s_.out.empty() && every > 0 && (step == 1 || step % every == 0);
  }

  void remember(std::int64_t step) {
    snapshot_.take(*s_.parameters, s_.optimizer.get());
    snapshot_step_ = step;
  }

  double samples_per_second() const {
    return train_seconds_ > 0 ? static_cast<double>(trained_steps_ * s_.settings.batch) / train_seconds_ : 0;
  }

  void print_header() {
    const auto& device = s_.device->info();
    progress_.print(fmt::format("{} on {}: {} parameters, {} + {} samples",
                                style_.bold(s_.settings.model.text), style_.bold(s_.settings.data),
                                s_.model.graph.parameter_count(), s_.data.train.count(),
                                s_.data.test.count()));
    progress_.print(fmt::format("{}, {}, batch {}, {} steps ({} an epoch), seed {}, {} on {}: {}",
                                describe(s_.settings.optimizer), s_.settings.schedule.text(),
                                s_.settings.batch, s_.total_steps, s_.steps_per_epoch, s_.settings.seed,
                                storage_text(s_.settings.dtype), device.name, device.precision));
    if (s_.resumed) progress_.print(fmt::format("going on at step {}", s_.first_step));
    for (const std::string& notice : s_.notices) progress_.print(style_.yellow(notice));
  }

  // A run begins with a checkpoint of step 0, so that it can be resumed whenever it was stopped.
  void open_log() {
    if (s_.out.empty()) return;
    const auto path = s_.out / "log.jsonl";
    std::error_code ignored;
    const bool goes_on = s_.resumed && std::filesystem::exists(path, ignored);
    if (s_.resumed)
      log_.emplace(path, static_cast<std::uint64_t>(s_.first_step));
    else
      log_.emplace(path);
    if (!goes_on) log_->write(start_line(s_));
    if (s_.tensorboard) tensorboard_.emplace(s_);
    if (!s_.resumed) s_.save(s_.last_checkpoint(), 0);
  }

  void write(const JsonLine& line) {
    if (log_) log_->write(line);
  }

  Outcome loop() {
    std::int64_t saved = s_.resumed ? s_.first_step : 0;
    remember(s_.first_step);
    for (std::int64_t step = s_.first_step + 1; step <= s_.total_steps; ++step) {
      const kernels::LossResult result = train(step);
      if (!std::isfinite(result.loss_sum)) return diverged(step, saved, "the loss is not finite");
      note(step, result);
      const bool last = step == s_.total_steps, stop = interrupted();
      if (is_probed(step)) {
        const auto readings = s_.probed().read_probes();
        write(layers_line(s_, step, readings));
        if (tensorboard_) tensorboard_->layers(step, rows_of(s_.model, readings));
      }
      const bool evaluates = last || due(step, cadence(s_.settings.eval_every));
      const bool saves = last || stop || due(step, cadence(s_.settings.checkpoint_every));
      if (evaluates || saves) {
        // Never replace a good checkpoint by one that holds a NaN.
        if (const auto name = find_nonfinite(*s_.parameters, s_.optimizer.get()))
          return diverged(step, saved, fmt::format("{} is not finite", quote(*name)));
      }
      if (evaluates) evaluate(step);
      if (saves && !s_.out.empty()) {
        s_.save(s_.last_checkpoint(), step);
        saved = step;
      }
      if (stop && !last) return stopped(step);
      if (step - snapshot_step_ >= kSnapshotEvery) {
        if (const auto name = find_nonfinite(*s_.parameters, s_.optimizer.get()))
          return diverged(step, saved, fmt::format("{} is not finite", quote(*name)));
        remember(step);
      }
    }
    return finished();
  }

  kernels::LossResult train(std::int64_t step) {
    const double start = now();
    Executor& executor = is_probed(step) ? s_.probed() : *s_.executor;
    s_.load_batch(step - 1, executor);
    s_.optimizer->set_step(step, s_.learning_rate(step - 1));
    executor.step();
    const kernels::LossResult result = executor.take_loss();
    train_seconds_ += now() - start;
    ++trained_steps_;
    return result;
  }

  void note(std::int64_t step, const kernels::LossResult& r) {
    write(step_line(s_, step, r));
    if (tensorboard_) tensorboard_->step(step, r, s_.learning_rate(step - 1), samples_per_second());
    const double rows = static_cast<double>(r.rows);
    last_loss_ = r.loss_sum / rows;
    shown_loss_ += r.loss_sum / rows;
    shown_accuracy_ += static_cast<double>(r.correct) / rows;
    ++shown_steps_;
    const double steps = static_cast<double>(shown_steps_);
    progress_.update(
        static_cast<double>(step),
        fmt::format("step {}/{}  loss {:.4g}  accuracy {:.1f} %  {} samples/s", step, s_.total_steps,
                    shown_loss_ / steps, 100 * shown_accuracy_ / steps, count_text(samples_per_second())));
  }

  void evaluate(std::int64_t step) {
    const Evaluation e = s_.evaluator->run();
    last_evaluation_ = e;
    const bool best = std::isfinite(e.loss) &&
                      (!s_.best || e.accuracy > s_.best->held_out.accuracy ||
                       (e.accuracy == s_.best->held_out.accuracy && e.loss < s_.best->held_out.loss));
    write(held_out_line(s_, step, e, best));
    if (tensorboard_) tensorboard_->held_out(step, e);
    if (best) {
      s_.best = Best{step, e};
      if (!s_.out.empty()) s_.save(s_.best_checkpoint(), step);
    }
    progress_.print(fmt::format("epoch {:5.2f}  step {:>6}  loss {:.4f}  held-out loss {:.4f}  accuracy {}{}",
                                static_cast<double>(step) / static_cast<double>(s_.steps_per_epoch), step,
                                shown_steps_ ? shown_loss_ / static_cast<double>(shown_steps_) : 0.0, e.loss,
                                style_.bold(fmt::format("{:.2f} %", 100 * e.accuracy)),
                                best ? style_.green("  best so far") : ""));
    shown_loss_ = shown_accuracy_ = 0;
    shown_steps_ = 0;
  }

  Outcome finished() const {
    std::string text =
        s_.first_step == s_.total_steps
            ? fmt::format("nothing left to do: step {} of {} was reached before", s_.total_steps,
                          s_.total_steps)
            : fmt::format("finished {} steps in {} ({} samples/s)", trained_steps_,
                          duration_text(progress_.seconds()), count_text(samples_per_second()));
    if (s_.best)
      text += fmt::format("; best held-out accuracy {:.2f} % at step {}", 100 * s_.best->held_out.accuracy,
                          s_.best->step);
    if (!s_.out.empty()) text += fmt::format("; in {}", s_.out.string());
    return {.status = "finished", .message = text, .step = s_.total_steps};
  }

  Outcome stopped(std::int64_t step) const {
    std::string how = "nothing was kept, for want of --out";
    if (!s_.out.empty())
      how = fmt::format("go on with: gradflow train --resume --out {}", shell_word(s_.out.string()));
    if (!s_.out.empty() && s_.device_name != "auto") how += " --device " + s_.device_name;
    return {.status = "interrupted",
            .message = fmt::format("interrupted after step {} of {}; {}", step, s_.total_steps, how),
            .step = step};
  }

  // `saved`: the step of the checkpoint that stays.
  Outcome diverged(std::int64_t step, std::int64_t saved, const std::string& what) {
    const auto [first, where, loss_too] = s_.find_first_nonfinite(snapshot_, snapshot_step_, step);
    write(nonfinite_line(step, first, where));
    std::string text = fmt::format("training stopped at step {}: {}; ", step, what);
    if (where)
      text += fmt::format("the first such tensor is the {} in layer {} at step {} ({} of {} values)", where->tensor,
                          where->layer, first, where->count, where->of);
    else if (loss_too)
      text += "every tensor was finite, the loss itself overflowed";
    else
      text += fmt::format("repeated with all probes from step {} on, every number was finite", snapshot_step_ + 1);
    if (!s_.out.empty())
      text += fmt::format("; the checkpoint of step {} is kept in {}", saved, s_.last_checkpoint().string());
    return {.status = "nonfinite", .message = text, .step = step};
  }
};

}  // namespace

int run_train(const TrainOptions& options, std::ostream& out, std::ostream& errors) {
  InterruptGuard guard;
  Session session = open_session(options);
  std::ostream silent(nullptr);
  const Terminal terminal = options.quiet ? Terminal{} : options.terminal;
  const Outcome outcome = Trainer(session, options.quiet ? silent : out, terminal).run();
  if (outcome.status == "nonfinite") {
    errors << "gradflow: " << outcome.message << std::endl;
    return 1;
  }
  if (outcome.status == "interrupted") {
    errors << "gradflow: " << outcome.message << std::endl;
    return guard.exit_code();
  }
  if (!options.quiet) out << outcome.message << std::endl;
  return 0;
}

}  // namespace gradflow::app
