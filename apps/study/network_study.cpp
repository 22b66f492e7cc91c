#include "apps/study/network_study.h"

#include <algorithm>
#include <cmath>

#include "apps/common/evaluator.h"
#include "apps/common/nonfinite.h"
#include "apps/study/layer_probes.h"
#include "apps/study/prediction.h"
#include "gradflow/engine/executor.h"
#include "gradflow/engine/interrupt.h"
#include "gradflow/engine/train_step.h"

namespace gradflow::app {
namespace {

double mean_loss(const kernels::LossResult& r) { return r.loss_sum / static_cast<double>(std::max<std::uint64_t>(r.rows, 1)); }

class NetworkStudy {
 public:
  NetworkStudy(const StudyOptions& options, const NetworkChoice& choice, kernels::Backend& backend, const StudyData& data,
               const std::function<void(double)>& tick)
      : options_(options), choice_(choice), data_(data), tick_(tick), spec_(parse_model(choice.model_spec)),
        model_(build_model(spec_, shape_of(data.data, options.batch))), store_(backend, model_.graph),
        order_(data.data.train.count(), static_cast<std::size_t>(options.batch), options.seed),
        result_(unmeasured(choice)) {
    result_.parameters = static_cast<std::int64_t>(model_.graph.parameter_count());
  }

  NetworkResult run() {
    measure_initialization();
    if (!interrupted()) train();
    return std::move(result_);
  }

 private:
  // Initialization costs about as much as this many training steps; only for the progress bar.
  static constexpr double kSeedCost = 8;

  const StudyOptions& options_;
  const NetworkChoice& choice_;
  const StudyData& data_;
  const std::function<void(double)>& tick_;
  ModelSpec spec_;
  Model model_;
  ParameterStore store_;
  BatchOrder order_;
  NetworkResult result_;
  double work_done_ = 0;

  void did(double work) {
    work_done_ += work;
    tick_(work_done_ / (kSeedCost * options_.init_seeds + options_.steps));
  }

  void measure_initialization() {
    LayerProbes probes(model_, false, choice_.own_outputs);
    Executor executor(model_.graph, store_, nullptr, {.probes = probes.requests()});
    const auto batch = order_.batch(0);
    data_.train.load(batch, executor.input("x"), executor.input("labels"));
    double loss = 0;
    for (int s = 0; s < options_.init_seeds && !interrupted(); ++s) {
      store_.initialize(spec_.initializer(), options_.seed + static_cast<std::uint64_t>(s));
      executor.step();
      probes.add(executor.read_probes());
      loss += mean_loss(executor.take_loss());
      did(kSeedCost);
    }
    if (!probes.added()) return;
    Moment moment{.step = 0, .seeds = probes.added(), .loss = loss / probes.added(), .layers = probes.rows()};
    if (!spec_.conv) add_predictions(model_, data_.data, batch, moment.layers);
    add_effective_rates(moment.layers);
    result_.moments.push_back(std::move(moment));
  }

  void train() {
    store_.initialize(spec_.initializer(), options_.seed);
    Optimizer optimizer(store_, {.kind = options_.optimizer, .learning_rate = options_.learning_rate,
                                 .momentum = options_.momentum, .weight_decay = options_.weight_decay});
    const LayerProbes layout(model_, true, choice_.own_outputs);
    Executor executor(model_.graph, store_, &optimizer, {.probes = layout.requests()});
    std::optional<Evaluator> held_out;
    if (options_.held_out) held_out.emplace(spec_, data_.data, store_, data_.test, options_.held_out, dead_units());
    double loss_sum = 0;
    int steps_since = 0;
    // One more step than is trained: the last moment is measured on the trained network and not applied.
    for (int step = 0; step <= options_.steps && !interrupted(); ++step) {
      const bool last = step == options_.steps, measure = last || is_moment(step);
      if (measure) add_curve_point(step, held_out ? &*held_out : nullptr, steps_since ? loss_sum / steps_since : kMissing, last);
      if (measure) loss_sum = 0, steps_since = 0;
      executor.set_probing(measure ? Probing::all : Probing::scalars);
      const double loss = train_step(executor, data_.train, order_, static_cast<std::uint64_t>(step));
      if (measure) add_moment(step, loss, executor.read_probes());
      if (!std::isfinite(loss)) return diverge(step, executor);
      loss_sum += loss;
      ++steps_since;
      did(1);
    }
  }

  // Counted where units are many and cheap to watch; ReLU's are the ones that can die.
  bool dead_units() const { return !spec_.conv && spec_.mlp.act == PointwiseId::relu; }
  bool is_moment(int step) const { return step == 0 || std::ranges::find(options_.moments, step) != options_.moments.end(); }

  void add_effective_rates(std::vector<LayerRow>& rows) const {
    if (!choice_.scale_free) return;
    for (std::size_t l = 0; l + 1 < rows.size(); ++l)
      rows[l].effective_rate = options_.learning_rate / (rows[l].weight_norm * rows[l].weight_norm);
  }

  void add_curve_point(int step, Evaluator* held_out, double train_loss, bool last) {
    Evaluation r{.loss = kMissing, .accuracy = kMissing};
    if (last) {
      r = Evaluator(spec_, data_.data, store_, data_.test, options_.final_held_out, dead_units()).run();
      result_.final_accuracy = r.accuracy;
      result_.final_loss = r.loss;
    } else if (held_out) {
      r = held_out->run();
    }
    result_.curve.push_back({.step = step, .train_loss = train_loss, .test_loss = r.loss, .test_accuracy = r.accuracy});
    dead_ = r.dead;
  }

  void add_moment(int step, double loss, const std::vector<ProbeReading>& readings) {
    LayerProbes probes(model_, true, choice_.own_outputs);
    probes.add(readings);
    std::vector<LayerRow> rows = probes.rows();
    // Before the first step batch norm has no running statistics to evaluate with.
    if (dead_units() && (step > 0 || choice_.norm == "none"))
      for (std::size_t l = 0; l < rows.size(); ++l) rows[l].dead = dead_[l];
    add_effective_rates(rows);
    if (step == 0 && !result_.moments.empty()) {  // initialization knows its layers from several seeds already
      for (std::size_t l = 0; l < rows.size(); ++l) {
        result_.moments[0].layers[l].update_ratio = rows[l].update_ratio;
        result_.moments[0].layers[l].dead = rows[l].dead;
      }
      return;
    }
    result_.moments.push_back({.step = step, .seeds = 1, .loss = loss, .layers = std::move(rows)});
  }

  // The scalars of the failing step are at hand, of its parameters as they were before it.
  void diverge(int step, Executor& executor) {
    result_.diverged_at = step;
    const auto found = first_nonfinite(model_.graph, executor.options().probes, executor.read_history());
    result_.diverged_where = found ? found->tensor : "the loss";
  }

  std::vector<double> dead_;
};

}  // namespace

NetworkResult study_network(const StudyOptions& options, const NetworkChoice& choice, kernels::Backend& backend,
                            const StudyData& data, const std::function<void(double)>& tick) {
  return NetworkStudy(options, choice, backend, data, tick).run();
}

}  // namespace gradflow::app
