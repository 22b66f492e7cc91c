#include "apps/train/summary.h"

#include <nlohmann/json.hpp>

#include "gradflow/engine/file.h"
#include "gradflow/engine/version.h"

namespace gradflow::app {
namespace {

using nlohmann::ordered_json;

ordered_json json_of(const Evaluation& e) { return {{"loss", e.loss}, {"accuracy", e.accuracy}}; }

}  // namespace

void write_summary(const std::filesystem::path& path, const Session& s, const Outcome& o) {
  const auto& device = s.device->info();
  ordered_json j = {
      {"status", o.status},
      {"message", o.message},
      {"step", o.step},
      {"total_steps", s.total_steps},
      {"epoch", static_cast<double>(o.step) / static_cast<double>(s.steps_per_epoch)},
      {"train_loss", o.train_loss ? ordered_json(*o.train_loss) : ordered_json()},
      {"held_out", o.held_out ? json_of(*o.held_out) : ordered_json()},
      {"best", nullptr},
      {"seconds", o.seconds},
      {"samples_per_second", o.samples_per_second},
      {"model", s.settings.model.text},
      {"data", s.settings.data},
      {"optimizer", describe(s.settings.optimizer)},
      {"schedule", s.settings.schedule.text()},
      {"augmentation", s.settings.augmentation.text},
      {"batch", s.settings.batch},
      {"seed", s.settings.seed},
      {"dtype", name_of(s.settings.dtype)},
      {"parameters", s.model.graph.parameter_count()},
      {"weights", s.settings.weights.empty() ? ordered_json() : ordered_json(s.settings.weights)},
      {"fused", s.fused},
      {"resumed_from", s.resumed ? ordered_json(s.first_step) : ordered_json()},
      {"device",
       {{"name", device.name},
        {"model", device.model},
        {"libraries", device.libraries},
        {"precision", device.precision}}},
      {"version", version()},
      {"git_revision", git_revision()},
  };
  if (s.best) {
    j["best"] = json_of(s.best->held_out);
    j["best"]["step"] = s.best->step;
  }
  write_file_atomically(path, j.dump(2, ' ', false, ordered_json::error_handler_t::replace) + "\n");
}

}  // namespace gradflow::app
