// `gradflow train` as a process: real signals, and the exit codes.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <string>
#include <thread>
#include <vector>

#include "apps/train_files.h"
#include "engine/image_files.h"
#include "gradflow/engine/checkpoint.h"

#ifdef GRADFLOW_PROGRAM

namespace gradflow::app {
namespace {

using test::has;
using test::TempDir;
using namespace std::chrono_literals;

class Process {
 public:
  Process(const TempDir& dir, std::vector<std::string> arguments)
      : errors_(dir / "stderr"), out_(dir / "stdout") {
    arguments.insert(arguments.begin(), {GRADFLOW_PROGRAM, "train"});
    std::vector<char*> argv;
    for (std::string& a : arguments) argv.push_back(a.data());
    argv.push_back(nullptr);
    pid_ = ::fork();
    if (pid_ != 0) return;
    redirect(out_, 1);
    redirect(errors_, 2);
    ::execv(GRADFLOW_PROGRAM, argv.data());
    ::_exit(127);
  }

  void send(int signal) const { ::kill(pid_, signal); }
  // The exit code, or minus the signal that ended it.
  int wait() const {
    int status = 0;
    if (::waitpid(pid_, &status, 0) != pid_) return 1000;
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
  }
  std::string errors() const { return read_file(errors_); }
  std::string out() const { return read_file(out_); }

 private:
  std::filesystem::path errors_, out_;
  pid_t pid_ = -1;

  static void redirect(const std::filesystem::path& path, int descriptor) {
    const int fd = ::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600);
    if (fd < 0 || ::dup2(fd, descriptor) < 0) ::_exit(126);
  }
};

std::vector<std::string> run_of(const std::filesystem::path& out, const char* steps) {
  return {"--model",
          kModel,
          "--data",
          kData,
          "--steps",
          steps,
          "--optimizer",
          "adam",
          "--lr",
          "0.003",
          "--schedule",
          "cosine",
          "--batch",
          "16",
          "--eval-every",
          "60",
          "--checkpoint-every",
          "25",
          "--device",
          "cpu",
          "--out",
          out.string()};
}

// Until the log has a line of a step, at most 20 s.
bool begins(const std::filesystem::path& log) {
  for (int i = 0; i < 4000; ++i) {
    std::error_code ignored;
    if (std::filesystem::file_size(log, ignored) > 2000 && !ignored) return true;
    std::this_thread::sleep_for(5ms);
  }
  return false;
}

TEST(TrainProgram, KilledAtAnyMomentItGoesOnAsIfNothingHadBeen) {
  const TempDir dir;
  ASSERT_EQ(Process(dir, run_of(dir / "whole", "1000")).wait(), 0);
  std::vector<std::string> arguments = run_of(dir / "killed", "1000");
  int kills = 0, code = -1;
  for (int round = 0; round < 60 && code != 0; ++round) {
    const Process process(dir, arguments);
    if (kills < 8) {
      // The first kill waits for the run to begin; the others come at any time, also while it starts.
      if (kills == 0) {
        ASSERT_TRUE(begins(dir / "killed" / "log.jsonl"));
      }
      std::this_thread::sleep_for(std::chrono::milliseconds(kills * 37 % 200));
      process.send(SIGKILL);
    }
    code = process.wait();
    if (code == 0) break;
    ASSERT_EQ(code, -SIGKILL) << process.errors();
    ++kills;
    const Checkpoint readable(dir / "killed" / "last.safetensors");
    EXPECT_LE(readable.info().step, 1000);
    arguments = {"--resume", "--stream", "--device", "cpu", "--out", (dir / "killed").string()};
  }
  EXPECT_EQ(code, 0);
  EXPECT_GT(kills, 0) << "the run was over before it could be killed: the test shows nothing";
  for (const char* file : {"last.safetensors", "best.safetensors", "log.jsonl"})
    EXPECT_TRUE(read_file(dir / "whole" / file) == read_file(dir / "killed" / file)) << file << " differs";
}

TEST(TrainProgram, SignalsEndItInOrder) {
  for (const int signal : {SIGINT, SIGTERM}) {
    const TempDir dir;
    std::vector<std::string> arguments = run_of(dir / "run", "1000000");
    if (signal == SIGTERM) arguments.push_back("--stream");  // a thread of its own collects batches
    const Process process(dir, arguments);
    ASSERT_TRUE(begins(dir / "run" / "log.jsonl"));
    process.send(signal);
    EXPECT_EQ(process.wait(), 128 + signal);
    EXPECT_TRUE(has(process.errors(), "go on with: gradflow train --resume --out " + (dir / "run").string()));
    const std::string errors = process.errors();
    EXPECT_EQ(std::count(errors.begin(), errors.end(), '\n'), 1) << errors;
    const auto step = Checkpoint(dir / "run" / "last.safetensors").info().step;
    EXPECT_EQ(log_of(dir / "run").back()["step"], step);
    EXPECT_EQ(summary_of(dir / "run")["step"], step);
  }
}

// The data of a streamed run are cut short while it trains.
TEST(TrainProgram, AFileThatBecomesShorterEndsItInOneLine) {
  const TempDir dir, files;
  test::write_idx_folder(files.path(), 512, 64, 4, 3);
  std::vector<std::string> arguments = run_of(dir / "run", "1000000");
  arguments[3] = "idx:" + files.path().string();
  arguments.push_back("--stream");
  const Process process(dir, arguments);
  ASSERT_TRUE(begins(dir / "run" / "log.jsonl"));
  std::filesystem::resize_file(files / "train-images-idx3-ubyte", 1000);
  EXPECT_EQ(process.wait(), 2);
  const std::string errors = process.errors();
  EXPECT_TRUE(has(errors, "train-images-idx3-ubyte") && has(errors, "it has become shorter")) << errors;
  EXPECT_EQ(std::count(errors.begin(), errors.end(), '\n'), 1) << errors;
}

TEST(TrainProgram, ExitCodesTellWhoseFaultItWas) {
  const TempDir dir;
  const auto code = [&](std::vector<std::string> more, const char* says) {
    std::vector<std::string> arguments = run_of(dir / "run", "10");
    arguments.insert(arguments.end(), more.begin(), more.end());
    const Process process(dir, arguments);
    const int result = process.wait();
    const std::string errors = process.errors();
    EXPECT_TRUE(has(errors, says));
    EXPECT_EQ(std::count(errors.begin(), errors.end(), '\n'), 1) << errors;
    EXPECT_FALSE(std::filesystem::exists(dir / "run"));
    return result;
  };
  EXPECT_EQ(code({"--probe-every", "x"}, "--probe-every"), 2);
  EXPECT_EQ(code({"--epochs", "3"}, "--epochs and --steps contradict each other"), 2);
  EXPECT_EQ(code({"--momemtum", "0.9"}, "did you mean --momentum?"), 2);
  EXPECT_EQ(code({"--momentum", "0.9"}, "--momentum belongs to sgd"), 2);
  EXPECT_EQ(code({"--momentum", "nan"}, "--momentum: 'nan' is not a finite number"), 2);
  EXPECT_EQ(code({"--weight-decay", "nan"}, "--weight-decay: 'nan' is not a finite number"), 2);
  EXPECT_EQ(code({"--resume"}, "nothing to resume"), 2);

  std::vector<std::string> wild = {"--model",     "mlp:depth=3,width=8",
                                   "--data",      kData,
                                   "--steps",     "9",
                                   "--optimizer", "sgd",
                                   "--lr",        "1e30",
                                   "--stream",
                                   "--device",    "cpu"};
  const Process diverges(dir, wild);
  EXPECT_EQ(diverges.wait(), 1);
  EXPECT_TRUE(has(diverges.errors(), "training stopped at step"));
  EXPECT_EQ(diverges.out().find('\033'), std::string::npos) << "escape sequences in a file";
  EXPECT_EQ(diverges.out().find('\r'), std::string::npos);
}

}  // namespace
}  // namespace gradflow::app

#endif
