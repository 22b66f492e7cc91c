// How far long work is: one redrawn line on a terminal, a plain line now and then elsewhere.
//
//   Progress progress(std::cout, detect_terminal(1), steps);
//   progress.update(step, "loss 0.412");
//   progress.print("epoch 1: held-out accuracy 84.1 %");   // a line that stays
//   progress.finish();
#pragma once

#include <chrono>
#include <functional>
#include <ostream>
#include <string>
#include <string_view>

#include "apps/terminal/style.h"

namespace gradflow::app {

class Progress {
 public:
  using Clock = std::function<double()>;  // seconds since some moment

  // `total` and `done` in any unit. Work that was done before (a resumed run) does not count as speed.
  // The clock is for tests; by default it is the steady one.
  Progress(std::ostream& out, const Terminal& terminal, double total, double done = 0, Clock clock = {});
  ~Progress() { finish(); }
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  // Draws if it is time to (ten times a second; without a terminal every ten seconds); cheap otherwise.
  void update(double done, std::string_view note);
  // Prints a line that stays.
  void print(std::string_view line);
  // Removes the bar. Nothing is drawn afterwards.
  void finish();

  // Per second since construction; 0 as long as nothing was done.
  double rate() const;
  double seconds() const { return clock_() - start_; }

 private:
  std::ostream& out_;
  Terminal terminal_;
  Style style_;
  double total_, first_, done_;
  Clock clock_;
  double start_, last_;
  bool drawn_ = false, finished_ = false;

  std::string line(std::string_view note, bool bar) const;
  void erase();
};

// "8 s", "2:31", "1:02:31"
std::string duration_text(double seconds);

}  // namespace gradflow::app
