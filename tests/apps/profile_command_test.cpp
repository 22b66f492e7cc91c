// The profilers' command lines: what a shell would make of them is what was run.
#include "apps/bench/profile_command.h"

#include "apps/common/shell_words.h"

#include <gtest/gtest.h>

#include <cstdio>
#include <memory>
#include <sstream>

namespace gradflow::app {
namespace {

std::vector<std::string> words_by_shell(const std::string& line) {
  std::vector<std::string> words;
  std::string text;
  const std::unique_ptr<FILE, int (*)(FILE*)> pipe(::popen(("printf '%s\\0' " + line).c_str(), "r"),
                                                   ::pclose);
  for (int c; (c = std::fgetc(pipe.get())) != EOF;) text += static_cast<char>(c);
  std::istringstream in(text);
  for (std::string word; std::getline(in, word, '\0');) words.push_back(word);
  return words;
}

bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

std::string line_with(const std::string& text, const std::string& part) {
  std::istringstream in(text);
  for (std::string line; std::getline(in, line);)
    if (contains(line, part)) return line;
  return {};
}

TEST(ProfileCommand, QuotesAsAShellReads) {
  const std::vector<std::string> words = {
      "a b", "it's", "$HOME", "", "2^26", "x;y", "*", "--only=^(relu|tanh)$", "\"", "\\"};
  EXPECT_EQ(words_by_shell(shell_line(words)), words);
  EXPECT_EQ(shell_line({"build/gradflow", "--size=7"}), "build/gradflow --size=7");
}

TEST(ProfileCommand, RunsTheSameKernelsInsideTheWindow) {
  const std::string text = profile_commands(
      {.command = {"build/gradflow", "bench", "kernels", "--only", "relu_b.*", "--print-profile-command"},
       .kernels = {"relu_backward_f32", "fill_f32"}});
  for (const char* tool : {"nsys profile", "ncu "}) {
    const std::vector<std::string> words = words_by_shell(line_with(text, tool));
    const std::vector<std::string> end(words.end() - 6, words.end());
    EXPECT_EQ(end, (std::vector<std::string>{"build/gradflow", "bench", "kernels", "--only", "relu_b.*",
                                             "--profile-window"}));
  }
  EXPECT_TRUE(contains(text, "--capture-range=cudaProfilerApi"));
  EXPECT_TRUE(contains(text, "--profile-from-start=off"));
  EXPECT_TRUE(contains(text, "'regex:^(relu_backward_f32|fill_f32)$'"));
  EXPECT_FALSE(contains(text, "--print-profile-command"));
  EXPECT_FALSE(contains(text, "on the host"));
}

TEST(ProfileCommand, ShowsAStepWithAndWithoutRecording) {
  for (const std::vector<std::string>& graph :
       {std::vector<std::string>{"--graph", "on"}, {"--graph=on"}, {}}) {
    std::vector<std::string> command = {"gradflow", "bench", "step"};
    command.insert(command.end(), graph.begin(), graph.end());
    command.push_back("--profile-window=5");
    const std::string text = profile_commands({.command = command, .step = true, .on_host = true});
    EXPECT_TRUE(contains(text, "ran on the host"));
    const std::string named = line_with(text, "gradflow-step-named ");
    EXPECT_TRUE(named.ends_with("gradflow bench step --profile-window=5 --graph=off")) << named;
    EXPECT_TRUE(contains(line_with(text, "--cuda-graph-trace=node"), shell_line(command)));
    EXPECT_TRUE(line_with(text, "ncu ").ends_with("--graph=off"));
  }
}

TEST(ProfileCommand, KnowsHowThisProcessWasStarted) {
  const std::vector<std::string> words = command_line();
  ASSERT_FALSE(words.empty());
  EXPECT_TRUE(contains(words.front(), "test_apps")) << words.front();
}

}  // namespace
}  // namespace gradflow::app
