#include "gradflow/engine/checkpoint.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <fstream>
#include <limits>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "engine/temp_dir.h"
#include "gradflow/engine/file.h"
#include "gradflow/engine/random.h"
#include "gradflow/engine/version.h"

namespace gradflow {
namespace {

using kernels::OptimizerKind;
using test::has;
using test::TempDir;
using test::user_error;

// A layer with two parameters and a state; nothing here ever runs it.
struct ParametersOnly final : Layer {
  std::int64_t out;
  bool state;
  explicit ParametersOnly(std::int64_t width, bool with_state = true) : out(width), state(with_state) {}
  std::string_view type() const noexcept override { return "parameters_only"; }
  Inference infer(std::span<const TensorSpec> x) const override {
    Inference r;
    r.outputs = {{{x[0].shape[0], out}, x[0].dtype}};
    r.parameters = {{"weight", {x[0].shape.back(), out}, ParameterRole::weight, x[0].shape.back(), out},
                    {"bias", {out}, ParameterRole::bias}};
    if (state) r.states = {{"running_mean", {{out}, x[0].dtype}, 0.5}};
    return r;
  }
  void forward(ForwardContext&) const override {}
  void backward(BackwardContext&) const override {}
};

Graph graph_of(std::vector<std::int64_t> widths, DType dtype = DType::f32, bool state = true) {
  Graph graph(dtype);
  ValueId x = graph.input("x", {{4, 7}, dtype});
  for (std::size_t i = 0; i < widths.size(); ++i)
    x = graph.add<ParametersOnly>("block0" + std::to_string(i + 1), {x}, widths[i], state);
  return graph;
}

std::string bytes_of(Backend& backend, const Tensor& t) {
  std::string bytes(t ? t.bytes() : 0, '\0');
  if (!bytes.empty()) backend.copy_out(bytes.data(), t.data, bytes.size());
  return bytes;
}

struct Trained {
  std::unique_ptr<kernels::Backend> backend = kernels::open_cpu(1);
  ParameterStore store;
  std::unique_ptr<Optimizer> optimizer;

  explicit Trained(const Graph& graph,
                   std::optional<OptimizerConfig> config = OptimizerConfig{.momentum = 0.9},
                   std::uint64_t seed = 1)
      : store(*backend, graph) {
    store.initialize({}, seed);
    if (!config) return;
    optimizer = std::make_unique<Optimizer>(store, *config);
    fill(optimizer->first_moments(), "m", seed);
    fill(optimizer->second_moments(), "v", seed);
    fill(store.states(), "s", seed);
  }

  void fill(std::span<const Tensor> tensors, const char* purpose, std::uint64_t seed) {
    for (std::size_t i = 0; i < tensors.size(); ++i) {
      if (!tensors[i]) continue;
      const RandomStream random(seed, purpose, i);
      if (tensors[i].dtype() == DType::f64)
        random.fill_normal(std::span(tensors[i].as<double>(), tensors[i].elements()), 0, 1);
      else
        random.fill_normal(std::span(tensors[i].as<float>(), tensors[i].elements()), 0, 1);
    }
  }

  std::string bytes() const {
    std::string all;
    const auto add = [&](std::span<const Tensor> tensors) {
      for (const Tensor& t : tensors) all += bytes_of(*backend, t);
    };
    add(store.parameters());
    add(store.states());
    if (optimizer) add(optimizer->first_moments()), add(optimizer->second_moments());
    return all;
  }
};

CheckpointInfo some_info() {
  return {.model = "mlp:depth=2,width=5",
          .data = "synthetic",
          .schedule = "cosine",
          .step = 1234567890123,
          .batch = 96,
          .seed = 18446744073709551615u,
          .extra = {{"note", "grüße"}, {"best", "0.25"}}};
}

OptimizerConfig config_of(OptimizerKind kind) {
  const bool adaptive = kind == OptimizerKind::adam || kind == OptimizerKind::adamw;
  return {.kind = kind, .learning_rate = 0.1, .momentum = adaptive ? 0 : 0.9, .weight_decay = 1e-4};
}

TEST(Checkpoint, BringsEveryBitBackForEveryOptimizerAndDtype) {
  for (const DType dtype : {DType::f32, DType::f64}) {
    for (const OptimizerKind kind :
         {OptimizerKind::sgd, OptimizerKind::nesterov, OptimizerKind::adam, OptimizerKind::adamw}) {
      SCOPED_TRACE(std::string(name_of(dtype)) + " " + name_of(kind));
      const TempDir dir;
      const Graph graph = graph_of({5, 3}, dtype);
      const Trained saved(graph, config_of(kind), 1);
      save_checkpoint(dir / "c", saved.store, saved.optimizer.get(), some_info());

      Trained loaded(graph, config_of(kind), 2);
      ASSERT_NE(loaded.bytes(), saved.bytes());
      const Checkpoint checkpoint(dir / "c");
      checkpoint.restore(loaded.store, loaded.optimizer.get());
      EXPECT_EQ(loaded.bytes(), saved.bytes());
      EXPECT_EQ(checkpoint.optimizer(), describe(config_of(kind)));
    }
  }
}

TEST(Checkpoint, KeepsWhatElseARunNeeds) {
  const TempDir dir;
  const Trained run(graph_of({5}));
  save_checkpoint(dir / "c", run.store, run.optimizer.get(), some_info());
  const Checkpoint checkpoint(dir / "c");
  const CheckpointInfo want = some_info();
  const CheckpointInfo& got = checkpoint.info();
  EXPECT_EQ(got.model, want.model);
  EXPECT_EQ(got.data, want.data);
  EXPECT_EQ(got.schedule, want.schedule);
  EXPECT_EQ(got.step, want.step);
  EXPECT_EQ(got.batch, want.batch);
  EXPECT_EQ(got.seed, want.seed);
  EXPECT_EQ(got.extra, want.extra);
  EXPECT_TRUE(has(checkpoint.version(), std::string(version())));
}

TEST(Checkpoint, NamesTensorsAsAPersonExpects) {
  const TempDir dir;
  const auto names = [&](OptimizerConfig config) {
    const Trained run(graph_of({5}), config);
    save_checkpoint(dir / "c", run.store, run.optimizer.get(), some_info());
    std::vector<std::string> result;
    const SafetensorsFile file(dir / "c");
    for (const StoredTensor& t : file.tensors()) result.push_back(t.name);
    std::ranges::sort(result);
    return result;
  };
  const std::vector<std::string> network = {"block01.bias", "block01.running_mean", "block01.weight"};
  auto sgd = network, adam = network;
  for (const char* p : {"bias", "weight"}) {
    sgd.push_back(std::string("optimizer/momentum/block01.") + p);
    adam.push_back(std::string("optimizer/first_moment/block01.") + p);
  }
  for (const char* p : {"bias", "weight"})
    adam.push_back(std::string("optimizer/second_moment/block01.") + p);
  EXPECT_EQ(names(config_of(OptimizerKind::sgd)), sgd);
  EXPECT_EQ(names(config_of(OptimizerKind::adam)), adam);
  EXPECT_EQ(names({.momentum = 0}), network);
  const SafetensorsFile file(dir / "c");
  EXPECT_EQ(file.at("block01.weight").shape, (std::vector<std::uint64_t>{7, 5}));
}

TEST(Checkpoint, ServesParametersAlone) {
  const TempDir dir;
  const Graph graph = graph_of({5, 3});
  const Trained saved(graph);
  save_checkpoint(dir / "c", saved.store, saved.optimizer.get(), some_info());
  Trained loaded(graph, std::nullopt, 2);
  Checkpoint(dir / "c").restore(loaded.store, nullptr);  // for evaluation: the moments are left aside
  EXPECT_EQ(loaded.bytes(), saved.bytes().substr(0, loaded.bytes().size()));
  save_checkpoint(dir / "bare", saved.store, nullptr, some_info());
  EXPECT_TRUE(has(user_error([&] {
                    Trained with(graph);
                    Checkpoint(dir / "bare").restore(with.store, with.optimizer.get());
                  }),
                  "was trained with optimizer none, not 'sgd:lr=0.1,momentum=0.9,weight_decay=0'"));
}

struct Misfit {
  const char* what;
  Graph graph;
  OptimizerConfig config;
  std::vector<std::string> says;
};

TEST(Checkpoint, RefusesAnotherNetworkOrOptimizerAndChangesNothing) {
  const TempDir dir;
  const Trained saved(graph_of({5, 3}), config_of(OptimizerKind::sgd));
  save_checkpoint(dir / "c", saved.store, saved.optimizer.get(), some_info());
  const OptimizerConfig sgd = config_of(OptimizerKind::sgd);
  const std::string model = "(it was trained as 'mlp:depth=2,width=5')";
  const Misfit misfits[] = {
      {"width", graph_of({5, 4}), sgd, {"'block02.weight' is [5, 3] there, [5, 4] here", model}},
      {"deeper", graph_of({5, 3, 3}), sgd, {"it lacks 'block03.weight', which is [3, 3] here", model}},
      {"shallower", graph_of({5}), sgd, {"it holds 'block02.", "which does not exist here", model}},
      {"dtype", graph_of({5, 3}, DType::f64), sgd, {"'block01.weight' is F32 there, F64 here"}},
      {"no state", graph_of({5, 3}, DType::f32, false), sgd, {"it holds 'block01.running_mean' [5]"}},
      {"kind",
       graph_of({5, 3}),
       config_of(OptimizerKind::adam),
       {"was trained with optimizer 'sgd:", "not 'adam:"}},
      {"nesterov", graph_of({5, 3}), config_of(OptimizerKind::nesterov), {"'sgd:", "not 'nesterov:"}},
      {"no momentum",
       graph_of({5, 3}),
       {.momentum = 0},
       {"holds 'optimizer/momentum/block01.", "momentum=0.9", "momentum=0,"}},
  };
  for (const Misfit& m : misfits) {
    SCOPED_TRACE(m.what);
    Trained here(m.graph, m.config, 2);
    const std::string before = here.bytes();
    const Checkpoint checkpoint(dir / "c");
    const std::string error = user_error([&] { checkpoint.restore(here.store, here.optimizer.get()); });
    EXPECT_TRUE(has(error, (dir / "c").string()));
    for (const std::string& part : m.says) EXPECT_TRUE(has(error, part));
    EXPECT_EQ(here.bytes(), before);
  }
  const Trained plain(graph_of({5, 3}), OptimizerConfig{.momentum = 0});
  save_checkpoint(dir / "plain", plain.store, plain.optimizer.get(), some_info());
  Trained here(graph_of({5, 3}), sgd, 2);
  EXPECT_TRUE(has(user_error([&] { Checkpoint(dir / "plain").restore(here.store, here.optimizer.get()); }),
                  "lacks 'optimizer/momentum/block01.weight'"));
}

TEST(Checkpoint, RefusesWhatIsNoCheckpoint) {
  const TempDir dir;
  write_safetensors(dir / "plain", {}, {{"format", "pt"}});
  EXPECT_TRUE(has(user_error([&] { Checkpoint{dir / "plain"}; }), "is no gradflow checkpoint"));
  EXPECT_TRUE(has(user_error([&] { Checkpoint{dir / "none"}; }), "No such file"));

  const Trained run(graph_of({5}));
  save_checkpoint(dir / "c", run.store, run.optimizer.get(), some_info());
  const SafetensorsFile good(dir / "c");
  const auto with = [&](const char* key, const char* value) {
    Metadata metadata = good.metadata();
    metadata[key] = value;
    write_safetensors(dir / "bad", {}, metadata);
    return user_error([&] { Checkpoint{dir / "bad"}; });
  };
  for (const char* wrong : {"", "-1", "12x", " 12", "1e3", "99999999999999999999", "0x10"})
    EXPECT_TRUE(has(with("step", wrong), "is damaged: step '" + std::string(wrong) + "'"));
  EXPECT_TRUE(has(with("seed", "18446744073709551616"), "is damaged: seed"));
  EXPECT_TRUE(has(with("batch", "nan"), "is damaged: batch"));
  EXPECT_TRUE(has(with("gradflow_checkpoint", "2"), "has layout '2'"));
  Metadata of_another = good.metadata();
  of_another["gradflow_checkpoint"] = "2", of_another["gradflow_version"] = "9\n9";
  write_safetensors(dir / "bad", {}, of_another);
  EXPECT_TRUE(has(user_error([&] { Checkpoint{dir / "bad"}; }), "written by gradflow '9\\n9'"));
}

// Without waiting for the disk, as write_file_atomically() does: there are many of these.
void write_quickly(const std::filesystem::path& path, const std::string& bytes) {
  std::ofstream(path, std::ios::binary) << bytes;
}

// Every truncation and a flip of every bit of the header: one line, never a crash, nothing restored by
// halves.
TEST(Checkpoint, SurvivesTruncationAndCorruption) {
  const TempDir dir;
  const Trained saved(graph_of({3}));
  save_checkpoint(dir / "c", saved.store, saved.optimizer.get(), some_info());
  const std::string good = read_file(dir / "c");
  Trained here(graph_of({3}), OptimizerConfig{.momentum = 0.9}, 2);
  const std::string before = here.bytes();
  save_checkpoint(dir / "undo", here.store, here.optimizer.get(), some_info());
  const Checkpoint undo(dir / "undo");

  for (std::size_t length = 0; length < good.size(); length += length < 64 ? 1 : 37) {
    write_quickly(dir / "bad", good.substr(0, length));
    user_error([&] { Checkpoint(dir / "bad").restore(here.store, here.optimizer.get()); });
    ASSERT_EQ(here.bytes(), before) << "cut to " << length << " bytes";
  }
  std::uint64_t header = 0;
  std::memcpy(&header, good.data(), sizeof header);
  int refused = 0;
  for (std::size_t at = 0; at < 8 + header; ++at) {
    std::string bad = good;
    bad[at] = static_cast<char>(bad[at] ^ (1 << at % 8));
    write_quickly(dir / "bad", bad);
    try {
      Checkpoint(dir / "bad").restore(here.store, here.optimizer.get());
      // A flip in text that nothing here depends on (a note, the data's name) is no fault; undo the copy.
      ASSERT_EQ(here.bytes(), saved.bytes()) << "half restored after a flip at byte " << at;
      undo.restore(here.store, here.optimizer.get());
    } catch (const UserError& error) {
      ++refused;
      ASSERT_EQ(std::string(error.what()).find('\n'), std::string::npos) << error.what();
    }
    ASSERT_EQ(here.bytes(), before) << "a flip at byte " << at;
  }
  EXPECT_GT(refused, static_cast<int>(header / 2));
}

TEST(Checkpoint, FindsTheFirstTensorThatIsNotFinite) {
  constexpr float kNan = std::numeric_limits<float>::quiet_NaN(),
                  kInfinity = std::numeric_limits<float>::infinity();
  Trained run(graph_of({5, 3}), config_of(OptimizerKind::adam));
  EXPECT_EQ(find_nonfinite(run.store, run.optimizer.get()), std::nullopt);
  run.optimizer->second_moments()[3].as<float>()[0] = kInfinity;
  EXPECT_EQ(find_nonfinite(run.store, run.optimizer.get()), "optimizer/second_moment/block02.bias");
  EXPECT_EQ(find_nonfinite(run.store, nullptr), std::nullopt);
  run.store.states()[1].as<float>()[2] = -kInfinity;
  EXPECT_EQ(find_nonfinite(run.store, run.optimizer.get()), "block02.running_mean");
  run.store.parameters()[2].as<float>()[14] = kNan;
  EXPECT_EQ(find_nonfinite(run.store, nullptr), "block02.weight");

  Trained wide(graph_of({5}, DType::f64), std::nullopt);
  wide.store.parameters()[0].as<double>()[34] = std::numeric_limits<double>::infinity();
  EXPECT_EQ(find_nonfinite(wide.store, nullptr), "block01.weight");
}

TEST(Checkpoint, AFailedSaveKeepsTheOneBefore) {
  const TempDir dir;
  const Trained run(graph_of({5}));
  save_checkpoint(dir / "c", run.store, run.optimizer.get(), some_info());
  const std::string before = read_file(dir / "c");
  CheckpointInfo twice = some_info();
  twice.extra["step"] = "7";
  EXPECT_THROW(save_checkpoint(dir / "c", run.store, run.optimizer.get(), twice), InternalError);
  EXPECT_EQ(read_file(dir / "c"), before);
  EXPECT_EQ(dir.entries(), 1u);
  EXPECT_TRUE(has(user_error([&] { save_checkpoint(dir / "none" / "c", run.store, nullptr, some_info()); }),
                  "cannot write"));
  EXPECT_TRUE(has(user_error([&] { save_checkpoint("/dev/full", run.store, nullptr, some_info()); }),
                  "No space left on device"));
}

// A process that saves without pause is killed at some moment, again and again.
TEST(Checkpoint, IsReadableWheneverTheWriterIsKilled) {
  const TempDir dir;
  const Graph graph = graph_of({64, 64});
  Trained run(graph);
  CheckpointInfo info = some_info();
  info.step = 0;
  save_checkpoint(dir / "c", run.store, run.optimizer.get(), info);
  std::int64_t last = 0;
  for (int round = 0; round < 8; ++round) {
    info.step = last;
    const pid_t child = ::fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
      for (;;) {
        ++info.step;
        std::fill_n(run.store.parameters()[0].as<float>(), run.store.parameters()[0].elements(),
                    static_cast<float>(info.step % 1000));
        save_checkpoint(dir / "c", run.store, run.optimizer.get(), info);
      }
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(5 + 7 * round));
    ::kill(child, SIGKILL);
    ::waitpid(child, nullptr, 0);
    const Checkpoint checkpoint(dir / "c");
    EXPECT_GE(checkpoint.info().step, last);
    last = checkpoint.info().step;
    Trained loaded(graph, OptimizerConfig{.momentum = 0.9}, 2);
    checkpoint.restore(loaded.store, loaded.optimizer.get());
    if (last > 0) {
      const float* w = loaded.store.parameters()[0].as<float>();
      EXPECT_EQ(w[0], static_cast<float>(last % 1000));
      EXPECT_EQ(w[loaded.store.parameters()[0].elements() - 1], w[0]);
    }
  }
  EXPECT_GT(last, 0) << "no child ever finished a save: the test shows nothing";
}

TEST(Checkpoint, DescribesAnOptimizerExactly) {
  EXPECT_EQ(describe({.learning_rate = 0.1, .momentum = 0.9, .weight_decay = 1e-4}),
            "sgd:lr=0.1,momentum=0.9,weight_decay=0.0001");
  EXPECT_EQ(describe({.kind = OptimizerKind::adamw, .learning_rate = 1e-3, .weight_decay = 0.01}),
            "adamw:lr=0.001,beta1=0.9,beta2=0.999,epsilon=1e-08,weight_decay=0.01");
  EXPECT_NE(describe({.learning_rate = 0.1}), describe({.learning_rate = 0.1 + 1e-16}));
}

}  // namespace
}  // namespace gradflow
