// Ctrl-C and SIGTERM, taken at a moment that suits the work.
//
//   InterruptGuard guard;
//   while (step < steps && !interrupted()) train_one_step();
//   write_checkpoint();
//   return guard.exit_code();    // 0, or 130 after SIGINT, 143 after SIGTERM
//
// The first signal only sets a flag. A second one means the person does not want to wait: the process
// ends at once with exit code 130 or 143 (files are safe: they are written beside and renamed).
#pragma once

namespace gradflow {

// While at least one guard lives, SIGINT and SIGTERM are handled as above; the last one restores what
// was there before. The flag outlives the guards. For the main thread; not for concurrent construction.
class InterruptGuard {
 public:
  InterruptGuard();
  ~InterruptGuard();
  InterruptGuard(const InterruptGuard&) = delete;
  InterruptGuard& operator=(const InterruptGuard&) = delete;

  int exit_code() const;  // 0 if not interrupted, else 128 + the signal
};

bool interrupted() noexcept;

// The signal that came first, or 0.
int interrupt_signal() noexcept;

// Forgets a signal that has been dealt with (and for tests).
void clear_interrupt() noexcept;

}  // namespace gradflow
