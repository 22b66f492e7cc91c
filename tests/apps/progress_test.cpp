#include "apps/terminal/progress.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <sstream>
#include <string>

namespace gradflow::app {
namespace {

struct FakeClock {
  double now = 100;
  Progress::Clock clock() {
    return [this] { return now; };
  }
};

std::size_t count(const std::string& text, const std::string& part) {
  std::size_t n = 0;
  for (std::size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++n;
  return n;
}

TEST(Progress, PrintsPlainLinesNowAndThenWithoutATerminal) {
  FakeClock time;
  std::ostringstream out;
  Progress progress(out, Terminal{}, 100, 0, time.clock());
  for (int step = 1; step <= 50; ++step) {
    time.now += 0.5;
    progress.update(step, "loss 1");
  }
  progress.finish();
  EXPECT_EQ(out.str(), " 20 %  40 s left  loss 1\n 40 %  30 s left  loss 1\n");
}

TEST(Progress, RedrawsOneLineOnATerminalAndTakesItAwayAtTheEnd) {
  FakeClock time;
  std::ostringstream out;
  Progress progress(out, Terminal{.interactive = true, .columns = 60}, 200, 0, time.clock());
  for (int step = 1; step <= 100; ++step) {
    time.now += 0.02;
    progress.update(step, std::string(200, 'x'));
  }
  const std::string drawn = out.str();
  EXPECT_EQ(count(drawn, "\n"), 0u);
  const std::size_t frames = count(drawn, "\r\033[K");
  EXPECT_GE(frames, 15u);  // 2 s, ten times a second
  EXPECT_LE(frames, 21u);
  EXPECT_NE(drawn.find("[#########...........]  45 %"), std::string::npos) << drawn;
  const std::string last = drawn.substr(drawn.rfind("\033[K") + 3);
  EXPECT_EQ(last.size(), 59u) << "a line as wide as the terminal wraps";
  EXPECT_NE(last.find(" left  xxx"), std::string::npos) << "the time left is what a narrow terminal must show: " << last;
  EXPECT_EQ(count(drawn, "\033[36m"), 0u) << "colors were not asked for";

  progress.print("epoch 1");
  EXPECT_TRUE(out.str().ends_with("\r\033[Kepoch 1\n"));
  time.now += 1;
  progress.update(101, "x");
  progress.finish();
  EXPECT_TRUE(out.str().ends_with("\r\033[K"));
  const std::string end = out.str();
  progress.update(102, "x");
  progress.finish();
  EXPECT_EQ(out.str(), end);
}

TEST(Progress, DoesNotTakeWorkDoneBeforeForSpeed) {
  FakeClock time;
  std::ostringstream out;
  Progress progress(out, Terminal{}, 1000, 900, time.clock());
  time.now += 10;
  progress.update(910, "");
  EXPECT_EQ(out.str(), " 91 %  1:30 left\n");
  EXPECT_DOUBLE_EQ(progress.rate(), 1.0);
}

TEST(Progress, SaysDurationsShortly) {
  EXPECT_EQ(duration_text(0.4), "0 s");
  EXPECT_EQ(duration_text(59.4), "59 s");
  EXPECT_EQ(duration_text(59.6), "1:00");
  EXPECT_EQ(duration_text(3599.7), "1:00:00");
  EXPECT_EQ(duration_text(36061), "10:01:01");
  EXPECT_EQ(duration_text(-1), "?");
}

TEST(Style, IsSilentWithoutColor) {
  EXPECT_EQ(Style(false).bold("x") + Style(false).green("y"), "xy");
  EXPECT_EQ(Style(true).red("x"), "\033[31mx\033[0m");
}

TEST(Style, APipeIsNoTerminal) {
  int ends[2];
  ASSERT_EQ(::pipe(ends), 0);
  const Terminal terminal = detect_terminal(ends[1]);
  EXPECT_FALSE(terminal.interactive);
  EXPECT_FALSE(terminal.color);
  ::close(ends[0]);
  ::close(ends[1]);
}

TEST(Style, NoColorIsHonored) {
  const int terminal = ::posix_openpt(O_RDWR | O_NOCTTY);
  ASSERT_GE(terminal, 0) << "pseudo-terminals need /dev/ptmx and a mounted /dev/pts";
  ::setenv("TERM", "xterm", 1);
  ::unsetenv("NO_COLOR");
  EXPECT_TRUE(detect_terminal(terminal).interactive);
  EXPECT_TRUE(detect_terminal(terminal).color);
  ::setenv("NO_COLOR", "1", 1);
  EXPECT_TRUE(detect_terminal(terminal).interactive);
  EXPECT_FALSE(detect_terminal(terminal).color);
  ::setenv("TERM", "dumb", 1);
  EXPECT_FALSE(detect_terminal(terminal).interactive);
  ::unsetenv("NO_COLOR");
  ::close(terminal);
}

}  // namespace
}  // namespace gradflow::app
