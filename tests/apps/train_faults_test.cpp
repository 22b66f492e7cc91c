// What can be wrong with a call of `gradflow train`: one clear line, and nothing left behind.
#include <gtest/gtest.h>

#include <cmath>
#include <fstream>

#include "apps/train_files.h"
#include "gradflow/engine/checkpoint.h"

namespace gradflow::app {
namespace {

using test::has;
using test::TempDir;
using test::user_error;

struct Fault {
  const char* what;
  void (*spoil)(TrainOptions&);
  const char* says;
};

TEST(TrainFaults, EachOptionIsCheckedBeforeAnythingIsWritten) {
  const Fault faults[] = {
      {"no model", [](TrainOptions& o) { o.model.reset(); }, "train needs --model"},
      {"nothing", [](TrainOptions& o) { o = {}; },
       "train needs --model, --data, --epochs or --steps, --optimizer, --lr"},
      {"unknown key", [](TrainOptions& o) { o.model = "mlp:dpeth=3"; }, "did you mean 'depth'?"},
      {"depth 0", [](TrainOptions& o) { o.model = "mlp:depth=0"; }, "depth=0"},
      {"unknown data", [](TrainOptions& o) { o.data = "sinthetic"; }, "did you mean 'synthetic'?"},
      {"no data", [](TrainOptions& o) { o.data = "idx:/none"; }, "there is no folder '/none'"},
      {"both lengths", [](TrainOptions& o) { o.epochs = 2; }, "--epochs and --steps contradict each other"},
      {"no length", [](TrainOptions& o) { o.steps.reset(); }, "train needs --epochs or --steps"},
      {"negative rate", [](TrainOptions& o) { o.learning_rate = -0.1; },
       "learning rate -0.1: it must be finite and 0 or more"},
      {"NaN rate", [](TrainOptions& o) { o.learning_rate = std::nan(""); },
       "learning rate nan: it must be finite"},
      {"infinite rate", [](TrainOptions& o) { o.learning_rate = INFINITY; }, "learning rate inf"},
      {"unknown recipe", [](TrainOptions& o) { o.recipe = "he2016"; }, "did you mean 'he2015'?"},
      {"recipe and optimizer", [](TrainOptions& o) { o.recipe = "he2015"; }, "leave out --optimizer, or the recipe"},
      {"unknown augmentation", [](TrainOptions& o) { o.augment = "standart"; }, "did you mean 'standard'?"},
      {"crop too large", [](TrainOptions& o) { o.augment = "standard"; }, "shifts images of 1x1 out of sight"},
      {"unknown optimizer", [](TrainOptions& o) { o.optimizer = "adma"; }, "did you mean 'adam'?"},
      {"its key", [](TrainOptions& o) { o.optimizer = "sgd:beta1=0.9"; }, "beta1"},
      {"momentum 1", [](TrainOptions& o) { o.optimizer = "sgd:momentum=1"; },
       "momentum 1: it must be in [0, 1)"},
      {"momentum twice", [](TrainOptions& o) { o.momentum = 0.5; },
       "momentum is given here and by --momentum"},
      {"adam's momentum", [](TrainOptions& o) { o.optimizer = "adam", o.momentum = 0.5; },
       "--momentum belongs to sgd and nesterov"},
      {"NaN decay", [](TrainOptions& o) { o.optimizer = "sgd", o.weight_decay = std::nan(""); },
       "weight decay nan"},
      {"schedule", [](TrainOptions& o) { o.schedule = "cosin"; }, "did you mean 'cosine'?"},
      {"long warm-up", [](TrainOptions& o) { o.schedule = "constant:warmup=8"; },
       "a warm-up of 8 steps does not fit into a run of 8"},
      {"batch 0", [](TrainOptions& o) { o.batch = 0; }, "the batch must hold at least 1 example, not 0"},
      {"large batch", [](TrainOptions& o) { o.batch = 513; },
       "a batch of 513 examples is larger than the data set, which has 512"},
      {"device name", [](TrainOptions& o) { o.device = "gpu"; }, "unknown device 'gpu'"},
      {"absent device", [](TrainOptions& o) { o.device = "cuda:4095"; }, "cuda"},
      {"tensorboard without out", [](TrainOptions& o) { o.tensorboard = true, o.out = ""; }, "--tensorboard needs --out"},
      {"checkpoints without out", [](TrainOptions& o) { o.out = ""; }, "--checkpoint-every needs --out"},
      {"probes without out", [](TrainOptions& o) { o.checkpoint_every.reset(), o.probe_every = 2, o.out = ""; }, "--probe-every needs --out"},
      {"resume without out", [](TrainOptions& o) { o.resume = true, o.out = ""; }, "--resume needs --out"},
      {"nothing there", [](TrainOptions& o) { o.resume = true; }, "nothing to resume: there is no "},
  };
  for (const Fault& fault : faults) {
    SCOPED_TRACE(fault.what);
    const TempDir dir;
    TrainOptions o = small_run(dir / "run", 8);
    fault.spoil(o);
    EXPECT_TRUE(has(user_error([&] { train(o); }), fault.says));
    EXPECT_EQ(dir.entries(), 0u);
  }
}

TEST(TrainFaults, AResumedRunMustBeTheSameRun) {
  const Fault faults[] = {
      {"model", [](TrainOptions& o) { o.model = "mlp:depth=4,width=17"; },
       "cannot resume with --model 'mlp:depth=4,width=17': this run was begun with "
       "'mlp:depth=4,width=16,act=tanh"},
      {"data", [](TrainOptions& o) { o.data = "synthetic"; },
       "cannot resume with --data 'synthetic': this run was begun with 'synthetic:n=512"},
      {"optimizer", [](TrainOptions& o) { o.optimizer = "adam"; },
       "cannot resume with --optimizer 'adam:lr=0.05,"},
      {"momentum", [](TrainOptions& o) { o.momentum = 0.5; },
       "cannot resume with --momentum 0.5: this run was begun with 0.9"},
      {"rate", [](TrainOptions& o) { o.learning_rate = 0.06; },
       "cannot resume with --lr 0.06: this run was begun with 0.05"},
      {"decay", [](TrainOptions& o) { o.weight_decay = 0.0; },
       "cannot resume with --weight-decay 0: this run was begun with 0.001"},
      {"schedule", [](TrainOptions& o) { o.schedule = "constant"; },
       "cannot resume with --schedule 'constant': this run was begun with 'cosine'"},
      {"recipe", [](TrainOptions& o) { o.recipe = "he2015"; }, "--recipe is for the beginning of a run"},
      {"augmentation", [](TrainOptions& o) { o.augment = "standard"; },
       "cannot resume with --augment 'standard': this run was begun with 'none'"},
      {"seed", [](TrainOptions& o) { o.seed = 7; },
       "cannot resume with --seed '7': this run was begun with '1'"},
      {"batch", [](TrainOptions& o) { o.batch = 64; },
       "cannot resume with --batch '64': this run was begun with '32'"},
      {"longer", [](TrainOptions& o) { o.steps = 16; },
       "cannot resume for 16 steps in all: schedule 'cosine' was laid out for 8"},
      {"shorter", [](TrainOptions& o) { o.steps = 4; },
       "cannot resume for 4 steps in all: the checkpoint is at step 8 already"},
      {"both", [](TrainOptions& o) { o.steps = 8, o.epochs = 1; }, "contradict each other"},
  };
  const TempDir dir;
  TrainOptions begun = small_run(dir / "run", 8);
  begun.schedule = "cosine";
  ASSERT_EQ(train(begun).code, 0);
  const std::string checkpoint = read_file(dir / "run" / "last.safetensors"),
                    log = read_file(dir / "run" / "log.jsonl");
  for (const Fault& fault : faults) {
    SCOPED_TRACE(fault.what);
    TrainOptions o = resume(dir / "run");
    fault.spoil(o);
    EXPECT_TRUE(has(user_error([&] { train(o); }), fault.says));
  }
  begun.resume = true;  // every setting given again, all as before
  EXPECT_EQ(train(begun).code, 0);
  begun.resume = false;
  EXPECT_TRUE(has(user_error([&] { train(begun); }), "holds a run already: add --resume"));
  EXPECT_TRUE(checkpoint == read_file(dir / "run" / "last.safetensors"));
  EXPECT_EQ(log, read_file(dir / "run" / "log.jsonl"));
}

TEST(TrainFaults, DamagedOrForeignCheckpointsAreRefused) {
  const TempDir dir;
  ASSERT_EQ(train(small_run(dir / "run", 8)).code, 0);
  const auto last = dir / "run" / "last.safetensors";
  const std::string good = read_file(last);
  const auto refused = [&](const std::string& bytes) {
    write_file_atomically(last, bytes);
    return user_error([&] { train(resume(dir / "run")); });
  };
  EXPECT_TRUE(has(refused(good.substr(0, good.size() - 1)), "last.safetensors"));
  EXPECT_TRUE(has(refused(good.substr(0, 40)), "last.safetensors"));
  EXPECT_TRUE(has(refused(""), "last.safetensors"));

  // A checkpoint whose text and tensors disagree: the first tensor that differs is named, with both shapes.
  const auto edited = [&](const char* key, const char* value) {
    write_file_atomically(last, good);
    edit_metadata(last, [&](Metadata& m) { value ? m[key] = value, void() : (m.erase(key), void()); });
    return user_error([&] { train(resume(dir / "run")); });
  };
  EXPECT_TRUE(has(edited("model", "mlp:depth=4,width=17,act=tanh,skip=on,norm=bn,init=xavier"),
                  "'stem.linear.weight' is [16, 12] there, [17, 12] here"));
  EXPECT_TRUE(has(edited("model", "mpl"), "unknown name 'mpl'"));
  EXPECT_TRUE(has(edited("optimizer", "adam:lr=1"), "was trained with optimizer"));
  EXPECT_TRUE(has(edited("total_steps", "many"), "total_steps"));
  EXPECT_TRUE(has(edited("steps", nullptr), "was not written by `gradflow train`"));
  EXPECT_TRUE(has(edited("best_loss", "low"), "are no numbers"));
  EXPECT_TRUE(has(edited("batch", "0"), "batch"));

  write_file_atomically(last, good);
  EXPECT_EQ(train(resume(dir / "run")).code, 0);
}

TEST(TrainFaults, OtherDataUnderTheSameNameAreNoticed) {
  const TempDir dir;
  ASSERT_EQ(train(small_run(dir / "run", 8)).code, 0);
  const auto last = dir / "run" / "last.safetensors";
  edit_metadata(last, [](Metadata& m) { m["data_fingerprint"].back() ^= 1; });
  EXPECT_TRUE(has(user_error([&] { train(resume(dir / "run")); }), "are not those this run was begun with"));
}

TEST(TrainFaults, AnOutputFolderThatCannotBeWritten) {
  const TempDir dir;
  std::ofstream(dir / "file") << "x";
  EXPECT_TRUE(has(user_error([&] { train(small_run(dir / "file", 8)); }), "it is a file"));
  EXPECT_TRUE(has(user_error([&] { train(small_run(dir / "file" / "run", 8)); }), "cannot use "));
  EXPECT_TRUE(has(user_error([&] { train(small_run("/proc/none", 8)); }),
                  "cannot use '/proc/none' as output folder"));
}

// Links to a device that is always full stand for a full disk: one for each file in turn.
TEST(TrainFaults, AFullDiskLosesNothing) {
  for (const char* file : {"log.jsonl", "best.safetensors", "summary.json"}) {
    SCOPED_TRACE(file);
    const TempDir dir;
    std::filesystem::create_directory(dir / "run");
    std::filesystem::create_symlink("/dev/full", dir / "run" / file);
    EXPECT_TRUE(has(user_error([&] { train(small_run(dir / "run", 8)); }), "No space left on device"));
    if (std::string_view(file) == "log.jsonl") continue;  // full before the first checkpoint
    EXPECT_GE(Checkpoint(dir / "run" / "last.safetensors").info().step, 0);
    std::filesystem::remove(dir / "run" / file);
    EXPECT_EQ(train(resume(dir / "run")).code, 0);
    EXPECT_EQ(Checkpoint(dir / "run" / "last.safetensors").info().step, 8);
  }
}

TEST(TrainFaults, QuietIsQuietAndWithoutOutNothingIsWritten) {
  TrainOptions o = small_run("", 6);
  o.checkpoint_every.reset();
  o.quiet = true;
  const TrainResult quiet = train(o);
  EXPECT_EQ(quiet.code, 0);
  EXPECT_EQ(quiet.out + quiet.errors, "");
  o.learning_rate = 1e300;
  const TrainResult failed = train(o);
  EXPECT_EQ(failed.code, 1);
  EXPECT_EQ(failed.out, "");
  EXPECT_TRUE(has(failed.errors, "training stopped at step"));
}

}  // namespace
}  // namespace gradflow::app
