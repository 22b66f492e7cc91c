#include "apps/study/pair.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>

#include "apps/study/run_networks.h"
#include "apps/study/verdict.h"

namespace gradflow::app {
namespace {

constexpr int kDepth = 56;
// Two strided stages leave 2 x 2 pixels of 8 x 8; of less there is no room for a 3 x 3 kernel to see.
constexpr std::size_t kLeastPixels = 8;

NetworkChoice choice(bool residual) {
  NetworkChoice c;
  c.id = fmt::format("{}-{}", residual ? "resnet" : "plain", kDepth);
  c.title = fmt::format("{}-{}, batch norm", residual ? "ResNet" : "plain", kDepth);
  c.model_spec = fmt::format("{}:depth={},norm=bn", residual ? "resnet" : "plain", kDepth);
  c.residual = residual;
  c.activation = "relu";
  c.init = "he";
  c.norm = "bn";
  c.depth = kDepth;
  c.width = 16;
  c.own_outputs = c.scale_free = true;
  return c;
}

std::string size_text(const ImageShape& s) { return fmt::format("{}x{}x{}", s.height, s.width, s.channels); }

// He et al. 2015, section 4.2, without the augmentation; the rest of `study` as it is. One network each:
// what is followed through the steps must be one and the same.
StudyOptions recipe_of_the_paper(StudyOptions study, bool quick, bool long_run) {
  study.batch = 128;
  study.learning_rate = 0.1;
  study.momentum = 0.9;
  study.weight_decay = 1e-4;
  study.optimizer = kernels::OptimizerKind::sgd;
  study.init_seeds = 1;
  study.steps = quick ? 20 : long_run ? 400 : 120;
  study.moments = {1, 2, 5, 10, 20, 40, 80, 120, 200};
  study.held_out = 0;
  study.final_held_out = long_run ? static_cast<std::size_t>(-1) : quick ? 500 : 2000;
  return study;
}

}  // namespace

std::vector<NetworkChoice> pair_choices() { return {choice(false), choice(true)}; }

PairResult run_pair(const StudyOptions& study, PairSize size, kernels::Backend& backend, const Dataset& data,
                    const StudyProgress& progress) {
  const auto start = std::chrono::steady_clock::now();
  const ImageShape shape = data.shape;
  PairResult result;
  if (std::min(shape.height, shape.width) < kLeastPixels) {
    result.why_not = fmt::format(
        "images of {} are too small for three stages of convolutions: at least {} x {} pixels are needed",
        size_text(shape), kLeastPixels, kLeastPixels);
    return result;
  }
  result.full_size = size == PairSize::full || (size == PairSize::automatic && !backend.is_host());
  const bool halve = !result.full_size && std::min(shape.height, shape.width) >= 2 * kLeastPixels;
  std::optional<Dataset> half;
  if (halve) half = halved_images(data);
  const Dataset& images = half ? *half : data;
  if (half)
    result.reduction = fmt::format("images of {} instead of {}, so that it fits into a minute on two cores",
                                   size_text(images.shape), size_text(shape));

  const StudyOptions o = recipe_of_the_paper(study, study.quick, !backend.is_host());
  result.data = fmt::format("{}, images of {}{}", data.name, size_text(images.shape),
                            half ? ": 2x2 pixels averaged into one" : "");
  result.optimizer = fmt::format("{} lr={} momentum={} weight_decay={}, no warm-up, no augmentation",
                                 name_of(o.optimizer), o.learning_rate, o.momentum, o.weight_decay);
  result.learning_rate = o.learning_rate;
  result.batch = o.batch;
  result.steps = o.steps;
  result.held_out = static_cast<int>(std::min(o.final_held_out, images.test.count()));
  result.networks = run_networks(o, pair_choices(), backend, images, progress);
  for (NetworkResult& n : result.networks) n.at_init = judge_at_init(n, Thresholds{});
  if (result.networks.empty()) result.why_not = "interrupted before it began";
  result.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return result;
}

}  // namespace gradflow::app
