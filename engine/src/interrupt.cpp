#include "gradflow/engine/interrupt.h"

#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <system_error>

#include "gradflow/kernels/error.h"

namespace gradflow {
namespace {

// Lock-free, so it may be used inside a signal handler.
std::atomic<int> first_signal{0};
static_assert(std::atomic<int>::is_always_lock_free);

int guards = 0;
struct sigaction old_interrupt, old_terminate;

extern "C" void on_signal(int number) {
  int none = 0;
  if (!first_signal.compare_exchange_strong(none, number)) ::_exit(128 + number);
}

void install(int number, struct sigaction* old) {
  struct sigaction action {};
  action.sa_handler = on_signal;
  action.sa_flags = SA_RESTART;  // a write under way goes on
  sigemptyset(&action.sa_mask);
  if (::sigaction(number, &action, old) != 0)
    throw InternalError("sigaction: " + std::generic_category().message(errno));
}

}  // namespace

InterruptGuard::InterruptGuard() {
  if (guards++ > 0) return;
  install(SIGINT, &old_interrupt);
  install(SIGTERM, &old_terminate);
}

InterruptGuard::~InterruptGuard() {
  if (--guards > 0) return;
  ::sigaction(SIGINT, &old_interrupt, nullptr);
  ::sigaction(SIGTERM, &old_terminate, nullptr);
}

int InterruptGuard::exit_code() const {
  const int number = interrupt_signal();
  return number == 0 ? 0 : 128 + number;
}

bool interrupted() noexcept { return first_signal.load(std::memory_order_relaxed) != 0; }
int interrupt_signal() noexcept { return first_signal.load(std::memory_order_relaxed); }
void clear_interrupt() noexcept { first_signal.store(0, std::memory_order_relaxed); }

}  // namespace gradflow
