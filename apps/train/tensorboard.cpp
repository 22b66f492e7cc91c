#include "apps/train/tensorboard.h"

#include <chrono>

namespace gradflow::app {
namespace {

double wall_seconds() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

EventFile::Histogram histogram_of(const LayerRow& row) {
  EventFile::Histogram h{.tag = "gradient_log2/" + row.name,
                         .least = static_cast<double>(row.first_exponent)};
  for (std::size_t b = 0; b < row.exponent_shares.size(); ++b) {
    h.limits.push_back(row.first_exponent + static_cast<double>(b) + 1);
    h.counts.push_back(row.exponent_shares[b]);
  }
  return h;
}

}  // namespace

TensorboardLog::TensorboardLog(const Session& session) : events_(session.out / "tensorboard", wall_seconds()) {
  if (session.resumed) events_.write_restart(session.first_step + 1, wall_seconds());
}

void TensorboardLog::step(std::int64_t step, const kernels::LossResult& r, double learning_rate,
                          double images_per_second) {
  const double rows = static_cast<double>(r.rows);
  events_.write_scalars(
      step, wall_seconds(),
      std::vector<EventFile::Scalar>{{"loss/train", r.loss_sum / rows},
                                     {"accuracy/train", static_cast<double>(r.correct) / rows},
                                     {"learning_rate", learning_rate},
                                     {"images_per_second", images_per_second}});
}

void TensorboardLog::held_out(std::int64_t step, const Evaluation& e) {
  events_.write_scalars(
      step, wall_seconds(),
      std::vector<EventFile::Scalar>{{"loss/held_out", e.loss}, {"accuracy/held_out", e.accuracy}});
}

void TensorboardLog::layers(std::int64_t step, const std::vector<LayerRow>& rows) {
  std::vector<EventFile::Scalar> norms;
  std::vector<EventFile::Histogram> histograms;
  for (const LayerRow& row : rows) {
    norms.push_back({"gradient_norm/" + row.name, row.gradient_norm});
    if (!row.exponent_shares.empty()) histograms.push_back(histogram_of(row));
  }
  events_.write_scalars(step, wall_seconds(), norms);
  if (!histograms.empty()) events_.write_histograms(step, wall_seconds(), histograms);
}

}  // namespace gradflow::app
