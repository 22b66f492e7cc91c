// Training that leaves the finite numbers: it stops, keeps the last good checkpoint and names where it began.
#include "apps/train/train.h"

#include <gtest/gtest.h>

#include <cmath>

#include "apps/common/nonfinite.h"
#include "apps/report/json.h"
#include "apps/train_files.h"
#include "gradflow/engine/checkpoint.h"

namespace gradflow::app {
namespace {

using test::has;
using test::TempDir;

TEST(Train, KeepsTheLastGoodCheckpointWhenItDiverges) {
  const TempDir dir;
  TrainOptions o = small_run(dir / "run", 50);
  o.model = "mlp:depth=6,width=16,act=relu";
  o.optimizer = "sgd";
  o.learning_rate = 1e6;
  o.checkpoint_every = 1;
  const TrainResult result = train(o);
  EXPECT_EQ(result.code, 1);
  EXPECT_EQ(std::count(result.errors.begin(), result.errors.end(), '\n'), 1) << result.errors;
  EXPECT_TRUE(has(result.errors, "training stopped at step "));
  EXPECT_TRUE(has(result.errors, "the first such tensor is the "));

  const auto last = log_of(dir / "run").back();
  ASSERT_EQ(last["event"], "nonfinite");
  EXPECT_TRUE(has(result.errors,
                  last["tensor"].get<std::string>() + " in layer " + last["layer"].get<std::string>()));
  const auto summary = summary_of(dir / "run");
  EXPECT_EQ(summary["status"], "nonfinite");
  const SafetensorsFile kept(dir / "run" / "last.safetensors");
  EXPECT_LT(std::stoll(kept.metadata().at("step")), last["step"].get<long long>());
  for (const StoredTensor& t : kept.tensors())
    for (const float x : kept.values<float>(t.name)) ASSERT_TRUE(std::isfinite(x)) << t.name;
}

TEST(Train, AnUpdateThatOverflowsIsNamedAndNotSaved) {
  const TempDir dir;
  TrainOptions o = small_run(dir / "run", 50);
  o.model = "mlp:depth=1";
  o.optimizer = "sgd";
  o.learning_rate = 1e300;  // infinite in f32
  o.checkpoint_every = 1;
  const TrainResult result = train(o);
  EXPECT_EQ(result.code, 1);
  EXPECT_TRUE(has(result.errors, "training stopped at step 1: 'head.linear.weight' is not finite"));
  EXPECT_TRUE(has(result.errors, "the update of head.linear.weight in layer head.linear at step 1"));
  EXPECT_TRUE(has(result.errors, "the checkpoint of step 0 is kept"));
  EXPECT_EQ(Checkpoint(dir / "run" / "last.safetensors").info().step, 0);
}

// Far from the start and from any measured step: the steps since the last look are repeated with probes.
class LateDivergence : public ::testing::TestWithParam<const char*> {};
INSTANTIATE_TEST_SUITE_P(Types, LateDivergence, ::testing::Values("f32", "bf16"));

TEST_P(LateDivergence, IsFoundByRepeatingTheStepsBefore) {
  const TempDir dir;
  TrainOptions o = small_run(dir / "run", 200);
  o.dtype = GetParam();
  o.model = "mlp:depth=5,width=16,act=relu";
  o.optimizer = "sgd";
  o.learning_rate = 0.1;
  o.schedule = "step:at=115,factor=1e6";
  o.probe_every = 0;
  o.eval_every = 1000;
  o.checkpoint_every = 60;
  const TrainResult unprobed = train(o);
  EXPECT_EQ(unprobed.code, 1);
  EXPECT_TRUE(has(unprobed.errors, "the first such tensor is the ")) << unprobed.errors;
  EXPECT_TRUE(has(unprobed.errors, "the checkpoint of step 60 is kept"));
  const auto last = log_of(dir / "run").back();
  ASSERT_EQ(last["event"], "nonfinite");
  EXPECT_GT(last["first_step"], 115);
  EXPECT_LE(last["first_step"], last["step"]);
  EXPECT_EQ(Checkpoint(dir / "run" / "last.safetensors").info().step, 60);
  // The same layer, tensor and step with probes in every step.
  o.out = (dir / "probed").string();
  o.probe_every = 1;
  EXPECT_EQ(train(o).code, 1);
  EXPECT_EQ(log_of(dir / "probed").back(), last);
  const StudyResult study = parse_report(read_file(dir / "probed" / "report" / "report.json"));
  EXPECT_EQ(study.networks.at(0).diverged_at, last["step"].get<int>());
}

TEST(NonFinite, TheEarliestStepAndTheFirstTensorInItWin) {
  const Model model =
      build_model(parse_model("mlp:depth=4,width=8"), {.batch = 2, .features = 3, .classes = 2});
  const auto requests = all_scalar_probes(model.graph, true, true);
  std::vector<std::vector<Stats>> history(3, std::vector<Stats>(requests.size()));
  EXPECT_FALSE(first_nonfinite(model.graph, requests, history));
  const auto spoil = [&](std::size_t step, ProbeTarget target, int id) {
    for (std::size_t i = 0; i < requests.size(); ++i)
      if (requests[i].target == target && requests[i].id == id)
        return history[step][i].nonfinite = 3, history[step][i].count = 16, void();
    FAIL() << "no such probe";
  };
  const auto found = [&] {
    const auto where = first_nonfinite(model.graph, requests, history);
    return where ? std::to_string(where->history_index) + ": " + where->tensor : "nothing";
  };
  const auto parameter = [&](const char* name) { return model.graph.find_parameter(name); };
  const auto value = [&](const char* name) { return model.graph.find_value(name); };
  spoil(2, ProbeTarget::value, value("stem.linear"));
  EXPECT_EQ(found(), "2: output of stem.linear");
  spoil(2, ProbeTarget::parameter, parameter("stem.linear.weight"));
  EXPECT_EQ(found(), "2: stem.linear.weight");
  spoil(1, ProbeTarget::update, parameter("stem.linear.weight"));
  EXPECT_EQ(found(), "1: update of stem.linear.weight");
  spoil(1, ProbeTarget::parameter_gradient, parameter("stem.linear.weight"));
  EXPECT_EQ(found(), "1: gradient of stem.linear.weight");
  spoil(1, ProbeTarget::gradient, value("stem.linear"));
  EXPECT_EQ(found(), "1: gradient of stem.linear");
  spoil(1, ProbeTarget::parameter_gradient, parameter("block02.linear.weight"));
  EXPECT_EQ(found(), "1: gradient of block02.linear.weight");  // backward begins at the head
  spoil(1, ProbeTarget::value, value("head.linear"));
  EXPECT_EQ(found(), "1: output of head.linear");
  spoil(1, ProbeTarget::value, value("block01.relu"));
  EXPECT_EQ(found(), "1: output of block01.relu");
  spoil(0, ProbeTarget::update, parameter("head.linear.bias"));
  EXPECT_EQ(found(), "0: update of head.linear.bias");
  const auto where = first_nonfinite(model.graph, requests, history);
  EXPECT_EQ(where->layer, "head.linear");
  EXPECT_EQ(where->count, 3u);
  EXPECT_EQ(where->of, 16u);
}

}  // namespace
}  // namespace gradflow::app
