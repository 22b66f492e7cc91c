#include "gradflow/engine/interrupt.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

namespace gradflow {
namespace {

// How a child process that runs `work` ends: its exit code, or minus the signal that killed it.
template <class Work>
int outcome(Work work) {
  const pid_t child = ::fork();
  if (child == 0) {
    ::signal(SIGINT, SIG_DFL);
    ::signal(SIGTERM, SIG_DFL);
    ::_exit(work());
  }
  int status = 0;
  if (child < 0 || ::waitpid(child, &status, 0) != child) return -1000;
  return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

TEST(Interrupt, TheFirstSignalSetsAFlag) {
  clear_interrupt();
  {
    InterruptGuard guard;
    EXPECT_FALSE(interrupted());
    EXPECT_EQ(guard.exit_code(), 0);
    ::raise(SIGTERM);
    EXPECT_TRUE(interrupted());
    EXPECT_EQ(interrupt_signal(), SIGTERM);
    EXPECT_EQ(guard.exit_code(), 143);
  }
  EXPECT_TRUE(interrupted());
  clear_interrupt();
  EXPECT_FALSE(interrupted());
  InterruptGuard again;
  ::raise(SIGINT);
  EXPECT_EQ(again.exit_code(), 130);
  clear_interrupt();
}

TEST(Interrupt, TheSecondEndsTheProcessAtOnce) {
  const auto twice = [](int second) {
    return outcome([=] {
      InterruptGuard guard;
      ::raise(SIGINT);
      if (!interrupted()) return 1;
      ::raise(second);
      return 2;
    });
  };
  EXPECT_EQ(twice(SIGINT), 130);
  EXPECT_EQ(twice(SIGTERM), 143);
}

TEST(Interrupt, WithoutAGuardSignalsKillAgain) {
  EXPECT_EQ(outcome([] {
              { InterruptGuard guard; }
              ::raise(SIGTERM);
              return 0;
            }),
            -SIGTERM);
  EXPECT_EQ(outcome([] {
              InterruptGuard outer;
              { InterruptGuard inner; }
              ::raise(SIGINT);
              return interrupted() ? 7 : 8;
            }),
            7);
}

}  // namespace
}  // namespace gradflow
