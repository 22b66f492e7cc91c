// `gradflow train`, called as a function: what it writes, that resuming is bit for bit, how it stops.
#include "apps/train/train.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cmath>
#include <csignal>
#include <fstream>
#include <set>

#include "apps/common/evaluator.h"
#include "apps/report/csv.h"
#include "apps/report/findings.h"
#include "apps/report/headline.h"
#include "apps/report/json.h"
#include "apps/train_files.h"
#include "engine/image_files.h"
#include "gradflow/engine/checkpoint.h"
#include "gradflow/engine/device.h"
#include "gradflow/engine/interrupt.h"

namespace gradflow::app {
namespace {

using test::has;
using test::TempDir;

// What two runs leave behind, bit for bit.
void expect_same_files(const std::filesystem::path& one, const std::filesystem::path& other) {
  for (const char* file : {"last.safetensors", "best.safetensors", "log.jsonl"})
    EXPECT_TRUE(read_file(one / file) == read_file(other / file)) << file << " differs";
}

TEST(Train, LearnsAndSaysSo) {
  const TempDir dir;
  TrainOptions o = small_run(dir / "run", 0);
  o.steps.reset();
  o.epochs = 4;
  o.eval_every.reset();
  o.checkpoint_every.reset();
  const TrainResult result = train(o);
  EXPECT_EQ(result.code, 0) << result.errors;
  EXPECT_EQ(result.errors, "");
  EXPECT_TRUE(has(result.out, "finished 64 steps"));

  std::vector<double> losses, held_out;
  for (const auto& line : log_of(dir / "run")) {
    if (line["event"] == "step") {
      losses.push_back(line["loss"]);
      EXPECT_EQ(line["step"], losses.size());
      EXPECT_EQ(line["learning_rate"], 0.05);
    }
    if (line["event"] == "held_out") held_out.push_back(line["accuracy"]);
  }
  ASSERT_EQ(losses.size(), 64u);
  ASSERT_EQ(held_out.size(), 4u);  // once an epoch
  EXPECT_LT(losses.back(), 0.5 * losses.front());
  EXPECT_GT(held_out.back(), 0.6);  // one of three classes by chance

  const auto summary = summary_of(dir / "run");
  EXPECT_EQ(summary["status"], "finished");
  EXPECT_EQ(summary["step"], 64);
  EXPECT_EQ(summary["held_out"]["accuracy"], held_out.back());
  EXPECT_EQ(summary["best"]["accuracy"], *std::max_element(held_out.begin(), held_out.end()));
  EXPECT_EQ(summary["augmentation"], "none");
  EXPECT_GT(summary["samples_per_second"], 0);
  std::set<std::string> files;
  for (const auto& entry : std::filesystem::directory_iterator(dir / "run"))
    files.insert(entry.path().filename());
  EXPECT_EQ(files,
            (std::set<std::string>{"best.safetensors", "last.safetensors", "log.jsonl", "report", "summary.json"}));
}

// The whole held-out split, counted by an executor that takes it in one batch.
TEST(Train, EvaluatesEverySampleOnce) {
  const TempDir dir;
  ASSERT_EQ(train(small_run(dir / "run", 10)).code, 0);
  const auto device = open_device("cpu");
  const Dataset data = load_dataset(kData);
  const Model model = build_model(parse_model(kModel), {.batch = 601, .features = 12, .classes = 3});
  ParameterStore parameters(*device, model.graph);
  Checkpoint(dir / "run" / "last.safetensors").restore(parameters, nullptr);
  Executor executor(model.graph, parameters, nullptr, {.training = false});
  Feed feed(*device, data, data.test);
  feed.load_range(0, executor.input("x"), executor.input("labels"));
  executor.forward();
  const kernels::LossResult whole = executor.take_loss();
  ASSERT_EQ(whole.rows, 601u);

  const auto summary = summary_of(dir / "run");
  EXPECT_DOUBLE_EQ(summary["held_out"]["accuracy"], static_cast<double>(whole.correct) / 601);
  // Rows are independent in evaluation; only the products' blocking may differ with the batch (f32).
  EXPECT_NEAR(summary["held_out"]["loss"], whole.loss_sum / 601, 1e-5);
  Evaluator evaluator(parse_model(kModel), data, parameters, feed);
  const Evaluation first = evaluator.run(), second = evaluator.run();
  EXPECT_EQ(first.loss, second.loss);
  EXPECT_EQ(first.loss, summary["held_out"]["loss"]);

  // Little memory: smaller batches, and every sample still counts once.
  EXPECT_EQ(evaluator.batch(), 500u);
  Evaluator small(parse_model(kModel), data, parameters, feed, Evaluator::kAll, false, 1);
  EXPECT_EQ(small.batch(), 1u);
  const Evaluation same = small.run();
  EXPECT_EQ(same.accuracy, first.accuracy);
  EXPECT_NEAR(same.loss, first.loss, 1e-5);
}

TEST(Train, ResumesBitForBitWithEveryOptimizer) {
  for (const char* optimizer :
       {"sgd", "sgd:momentum=0.9,weight_decay=0.001", "nesterov", "adam", "adamw:beta2=0.95"}) {
    SCOPED_TRACE(optimizer);
    const TempDir dir;
    const auto run = [&](const char* name, std::int64_t steps) {
      TrainOptions o = small_run(dir / name, steps);
      o.optimizer = optimizer;
      o.learning_rate = 0.01;
      o.schedule = "step:every=7,factor=0.5,warmup=3";
      o.probe_every = 6;
      ASSERT_EQ(train(o).code, 0);
    };
    run("whole", 40);
    run("halves", 20);
    TrainOptions o = resume(dir / "halves");
    o.steps = 40;
    ASSERT_EQ(train(o).code, 0);
    expect_same_files(dir / "whole", dir / "halves");
  }
}

TEST(Train, ResumesAugmentedRunsBitForBit) {
  const TempDir dir;
  const auto run = [&](const char* name, std::int64_t steps) {
    TrainOptions o = small_run(dir / name, steps);
    o.data = "synthetic:n=256,test=64,height=8,width=8,channels=1,classes=3";
    o.augment = "standard:crop=2";
    ASSERT_EQ(train(o).code, 0);
  };
  run("whole", 24);
  run("halves", 10);
  TrainOptions o = resume(dir / "halves");
  o.steps = 24;
  ASSERT_EQ(train(o).code, 0);
  expect_same_files(dir / "whole", dir / "halves");
  // What ran is in every file that is read by itself.
  EXPECT_EQ(log_of(dir / "halves").front()["augmentation"], "standard:crop=2");
  EXPECT_EQ(summary_of(dir / "halves")["augmentation"], "standard:crop=2");
  EXPECT_EQ(summary_of(dir / "halves")["weights"], nullptr);
}

// Handed over batch by batch, over the end of an epoch, a stop and a resume: from memory and from files.
TEST(Train, StreamedRunsHaveTheBitsOfResidentOnes) {
  const TempDir files;
  test::write_idx_folder(files.path(), 256, 64, 8, 8);
  for (const std::string& data : {std::string("synthetic:n=256,test=64,height=8,width=8,channels=1,classes=3"),
                                  "idx:" + files.path().string()}) {
    SCOPED_TRACE(data);
    const bool in_files = data.starts_with("idx");
    const TempDir dir;
    const auto run = [&](const char* name, std::int64_t steps, bool stream) {
      TrainOptions o = small_run(dir / name, steps);
      o.data = data;
      o.augment = "standard:crop=2";
      o.stream = stream;
      const TrainResult result = train(o);
      ASSERT_EQ(result.code, 0);
      EXPECT_EQ(result.out.find("are held in memory") != std::string::npos, stream && !in_files);
    };
    run("resident", 24, false);
    run("streamed", 10, true);  // an epoch has 8
    TrainOptions o = resume(dir / "streamed");
    o.steps = 24;
    o.stream = true;
    ASSERT_EQ(train(o).code, 0);
    expect_same_files(dir / "resident", dir / "streamed");
  }
}

TEST(Train, ARecipeFillsInWhatIsNotGiven) {
  TrainOptions o;
  o.model = "resnet:depth=20";
  o.data = "cifar10:somewhere";
  o.recipe = "he2015";
  TrainSettings s = fresh_settings(o);
  EXPECT_EQ(s.optimizer.kind, kernels::OptimizerKind::sgd);
  EXPECT_EQ(s.optimizer.learning_rate, 0.1);
  EXPECT_EQ(s.optimizer.momentum, 0.9);
  EXPECT_EQ(s.optimizer.weight_decay, 1e-4);
  EXPECT_EQ(s.steps, 64000);
  EXPECT_EQ(s.batch, 128);
  EXPECT_EQ(s.augmentation.crop, 4);
  EXPECT_TRUE(s.augmentation.flip && s.augmentation.pixel_mean);
  const auto rate = [&](std::uint64_t step) { return s.schedule.learning_rate(step, 64000, 0.1); };
  EXPECT_DOUBLE_EQ(rate(0), 0.1);
  EXPECT_DOUBLE_EQ(rate(31999), 0.1);
  EXPECT_DOUBLE_EQ(rate(32000), 0.01);
  EXPECT_DOUBLE_EQ(rate(48000), 0.001);

  o.model = "resnet:depth=110";
  s = fresh_settings(o);
  EXPECT_DOUBLE_EQ(rate(0), 0.01);
  EXPECT_DOUBLE_EQ(rate(399), 0.01);
  EXPECT_DOUBLE_EQ(rate(400), 0.1);
  EXPECT_DOUBLE_EQ(rate(32000), 0.01);
  EXPECT_DOUBLE_EQ(rate(48000), 0.001);

  o.learning_rate = 0.2;
  o.epochs = 3;
  o.augment = "none";
  s = fresh_settings(o);
  EXPECT_EQ(s.optimizer.learning_rate, 0.2);
  EXPECT_EQ(s.epochs, 3);
  EXPECT_EQ(s.steps, 0);
  EXPECT_FALSE(s.augmentation.moves());
}

TEST(Train, SaysThatAScheduleNeverTakesEffect) {
  const TempDir dir;
  int number = 0;
  const auto note = [&](const char* schedule) {
    TrainOptions o = small_run(dir / std::to_string(number++), 8);
    o.schedule = schedule;
    return has(train(o).out, fmt::format("note: the run ends at step 8, before schedule '{}' changes the rate", schedule));
  };
  EXPECT_TRUE(note("step:at=8/12,factor=0.1"));
  EXPECT_TRUE(note("step:every=8,factor=0.1"));
  EXPECT_FALSE(note("step:at=7/12,factor=0.1"));
  EXPECT_FALSE(note("step:every=7,factor=0.1"));
  EXPECT_FALSE(note("cosine"));
}

TEST(Train, AResumedRunRemembersItsBest) {
  const TempDir dir;
  ASSERT_EQ(train(small_run(dir / "run", 10)).code, 0);
  const std::string best = read_file(dir / "run" / "best.safetensors");
  edit_metadata(dir / "run" / "last.safetensors",
                [](Metadata& m) { m["best_accuracy"] = "1", m["best_loss"] = "0", m["best_step"] = "3"; });
  TrainOptions o = resume(dir / "run");
  o.steps = 20;
  ASSERT_EQ(train(o).code, 0);
  for (const auto& line : log_of(dir / "run")) {
    const bool later = line["event"] == "held_out" && line["step"] > 10;
    EXPECT_FALSE(later && line["best"]);
  }
  EXPECT_EQ(summary_of(dir / "run")["best"], (nlohmann::json{{"loss", 0.0}, {"accuracy", 1.0}, {"step", 3}}));
  EXPECT_TRUE(read_file(dir / "run" / "best.safetensors") == best);
}

TEST(Train, ProbesChangeNoBit) {
  const TempDir dir;
  TrainOptions o = small_run(dir / "without", 12);
  o.probe_every = 0;
  ASSERT_EQ(train(o).code, 0);
  EXPECT_FALSE(std::filesystem::exists(dir / "without" / "report"));
  o = small_run(dir / "with", 12);
  o.probe_every = 1;
  ASSERT_EQ(train(o).code, 0);
  const SafetensorsFile without(dir / "without" / "last.safetensors"),
      with(dir / "with" / "last.safetensors");
  ASSERT_EQ(without.tensors().size(), with.tensors().size());
  for (const StoredTensor& t : without.tensors())
    EXPECT_EQ(std::string_view(reinterpret_cast<const char*>(t.data), t.bytes()),
              std::string_view(reinterpret_cast<const char*>(with.at(t.name).data), t.bytes()))
        << t.name;

  int lines = 0;
  for (const auto& line : log_of(dir / "with")) {
    if (line["event"] != "layers") continue;
    ++lines;
    EXPECT_EQ(line["layer"],
              (nlohmann::json{"stem.linear", "block01.linear", "block02.linear", "head.linear"}));
    for (const char* key : {"value", "gradient", "weight", "weight_gradient", "update"}) {
      ASSERT_EQ(line[key].size(), 4u) << key;
      for (const double norm : line[key]) EXPECT_TRUE(norm > 0 && norm < 1e3) << key << " " << norm;
    }
  }
  EXPECT_EQ(lines, 12);
}

// Steps without probes run fused (convolutions, batch norm, activation and addition), steps with probes apart.
TEST(Train, FusedAndProbedStepsGiveTheSameBits) {
  const TempDir dir;
  std::string checkpoints[3];
  for (const int every : {0, 1, 2}) {
    TrainOptions o = small_run(dir / std::to_string(every), 5);
    o.model = "resnet:depth=8";
    o.data = "synthetic:n=64,test=16,height=8,width=8,channels=1";
    o.batch = 16;
    o.probe_every = every;
    ASSERT_EQ(train(o).code, 0);
    const SafetensorsFile file(dir / std::to_string(every) / "last.safetensors");
    for (const StoredTensor& t : file.tensors())
      checkpoints[every] += std::string(reinterpret_cast<const char*>(t.data), t.bytes());
  }
  EXPECT_TRUE(checkpoints[0] == checkpoints[1]);
  EXPECT_TRUE(checkpoints[0] == checkpoints[2]);
  EXPECT_GT(checkpoints[0].size(), 75000u * 8);  // parameters and moments
}

TEST(Train, EndsWithTheGradientByLayer) {
  const TempDir dir;
  TrainOptions o = small_run(dir / "run", 13);
  o.probe_every = 4;
  ASSERT_TRUE(has(train(o).out, "the gradient by layer: " + (dir / "run" / "report" / "report.html").string()));
  const StudyResult study = parse_report(read_file(dir / "run" / "report" / "report.json"));
  ASSERT_EQ(study.networks.size(), 1u);
  const NetworkResult& n = study.networks[0];
  EXPECT_EQ(n.model_spec, kModel);
  EXPECT_TRUE(n.residual);
  std::vector<int> steps;
  for (const Moment& m : n.moments) steps.push_back(m.step);
  EXPECT_EQ(steps, (std::vector<int>{0, 3, 7, 11}));  // measured in steps 1, 4, 8, 12
  EXPECT_EQ(n.curve.front().step, 1);
  EXPECT_EQ(n.curve.back().step, 13);
  for (const auto& line : log_of(dir / "run")) {
    if (line["event"] != "layers" || line["step"] != 8) continue;
    const LayerRow& row = n.moments[2].layers[1];
    EXPECT_NEAR(row.gradient_norm / line["gradient"][1].get<double>(), 1, 1e-5);
    EXPECT_NEAR(row.update_ratio * line["weight"][1].get<double>() / line["update"][1].get<double>(), 1, 1e-5);
    double all = row.gradient_zeros;
    for (const double share : row.exponent_shares) all += share;
    EXPECT_NEAR(all, 1, 1e-4);
    EXPECT_TRUE(std::isfinite(row.skip_norm));
  }
  EXPECT_FALSE(std::isnan(n.moments[0].layers[2].predicted_norm));
  EXPECT_EQ(n.final_accuracy, std::round(summary_of(dir / "run")["held_out"]["accuracy"].get<double>() * 1e6) / 1e6);

  // A run that was stopped and resumed shows the same: but for when it ran and how long.
  o.out = (dir / "cut").string();
  o.steps = 8;
  ASSERT_EQ(train(o).code, 0);
  TrainOptions rest = resume(dir / "cut");
  rest.steps = 13;
  ASSERT_EQ(train(rest).code, 0);
  const StudyResult again = parse_report(read_file(dir / "cut" / "report" / "report.json"));
  EXPECT_EQ(layers_csv(again), layers_csv(study));
}

// What theory says of random weights it does not say of those of a file.
TEST(Train, NoPredictionForWeightsThatWereGiven) {
  const TempDir dir;
  ASSERT_EQ(train(small_run(dir / "first", 3)).code, 0);
  TrainOptions o = small_run(dir / "second", 3);
  o.weights = (dir / "first" / "last.safetensors").string();
  ASSERT_EQ(train(o).code, 0);
  const StudyResult random = parse_report(read_file(dir / "first" / "report" / "report.json")),
                    given = parse_report(read_file(dir / "second" / "report" / "report.json"));
  EXPECT_EQ(random.networks.at(0).init, "xavier");
  EXPECT_FALSE(std::isnan(random.networks[0].at_init.predicted_factor));
  EXPECT_TRUE(has(headline(random).claim, "At initialization: "));
  const NetworkResult& n = given.networks.at(0);
  EXPECT_EQ(n.init, kLoadedWeights);
  EXPECT_TRUE(std::isnan(n.at_init.predicted_factor));
  for (const LayerRow& row : n.moments.at(0).layers) EXPECT_TRUE(std::isnan(row.predicted_norm)) << row.layer;
  EXPECT_TRUE(has(headline(given).claim, "With the weights it was given: ")) << headline(given).claim;
  EXPECT_GT(findings(random).size(), 1u);
  ASSERT_EQ(findings(given).size(), 1u);
  EXPECT_EQ(findings(given)[0].id, "precision");
}

TEST(Train, EqualRunsAreEqualAndSeedsDiffer) {
  const TempDir dir;
  ASSERT_EQ(train(small_run(dir / "a", 8)).code, 0);
  ASSERT_EQ(train(small_run(dir / "b", 8)).code, 0);
  TrainOptions o = small_run(dir / "c", 8);
  o.seed = 2;
  ASSERT_EQ(train(o).code, 0);
  EXPECT_TRUE(read_file(dir / "a" / "last.safetensors") == read_file(dir / "b" / "last.safetensors"));
  EXPECT_EQ(read_file(dir / "a" / "log.jsonl"), read_file(dir / "b" / "log.jsonl"));
  EXPECT_NE(log_of(dir / "a").back()["loss"], log_of(dir / "c").back()["loss"]);
}

// Sends a signal as soon as a text was printed.
class SignalOn : public std::stringbuf {
 public:
  SignalOn(std::string text, int signal) : text_(std::move(text)), signal_(signal) {}

 private:
  std::string text_;
  int signal_;
  int sync() override {
    if (signal_ && str().find(text_) != std::string::npos) std::raise(std::exchange(signal_, 0));
    return 0;
  }
};

TEST(Train, AStoppedRunIsWrittenWholeAndGoesOnAsIfNothingHadBeen) {
  for (const int signal : {SIGINT, SIGTERM}) {
    SCOPED_TRACE(signal);
    const TempDir dir;
    const auto options = [&](const char* name) {
      TrainOptions o = small_run(dir / name, 30);
      o.schedule = "cosine";
      return o;
    };
    ASSERT_EQ(train(options("whole")).code, 0);
    SignalOn buffer("step     10", signal);
    std::ostream out(&buffer);
    std::ostringstream errors;
    EXPECT_EQ(run_train(options("cut"), out, errors), 128 + signal);
    EXPECT_TRUE(
        has(errors.str(), "interrupted after step 11 of 30; go on with: gradflow train --resume --out " +
                              (dir / "cut").string() + " --device cpu"));
    EXPECT_EQ(Checkpoint(dir / "cut" / "last.safetensors").info().step, 11);
    EXPECT_EQ(summary_of(dir / "cut")["status"], "interrupted");
    EXPECT_EQ(log_of(dir / "cut").back()["step"], 11);
    clear_interrupt();

    const TrainResult rest = train(resume(dir / "cut"));
    EXPECT_EQ(rest.code, 0);
    EXPECT_TRUE(has(rest.out, "going on at step 11"));
    expect_same_files(dir / "whole", dir / "cut");
    EXPECT_EQ(summary_of(dir / "cut")["resumed_from"], 11);
    EXPECT_TRUE(has(train(resume(dir / "cut")).out, "nothing left to do"));
  }
}

TEST(Train, WhatWasLoggedBehindTheCheckpointIsDropped) {
  const TempDir dir;
  ASSERT_EQ(train(small_run(dir / "whole", 12)).code, 0);
  ASSERT_EQ(train(small_run(dir / "cut", 8)).code, 0);
  // As after kill -9: lines of steps behind the last checkpoint, the last one cut off.
  std::ofstream(dir / "cut" / "log.jsonl", std::ios::app) << R"({"event":"step","step":9,"loss":1})"
                                                          << "\n"
                                                          << R"({"event":"st)";
  TrainOptions o = resume(dir / "cut");
  o.steps = 12;
  ASSERT_EQ(train(o).code, 0);
  const auto whole = log_of(dir / "whole"), cut = log_of(dir / "cut");
  std::size_t extra = 0;  // the first part's own last evaluation, at step 8
  for (const auto& line : cut) extra += line["event"] == "held_out" && line["step"] == 8;
  EXPECT_EQ(cut.size() - extra, whole.size());
  EXPECT_EQ(cut.back(), whole.back());
}

}  // namespace
}  // namespace gradflow::app
