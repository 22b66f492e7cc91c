#include "apps/terminal/progress.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdint>

namespace gradflow::app {
namespace {

constexpr double kRedrawSeconds = 0.1, kPlainSeconds = 10;
constexpr double kSettleSeconds = 0.3;  // before it no estimate of the time left is worth showing
constexpr int kBarCells = 20;

double steady_seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

std::string bar_text(double share, bool unicode) {
  const int full = static_cast<int>(std::floor(share * kBarCells));
  std::string text = unicode ? "" : "[";
  for (int i = 0; i < kBarCells; ++i)
    text += i < full ? (unicode ? "\u2588" : "#") : (unicode ? "\u2591" : ".");
  return unicode ? text : text + "]";
}

// At most `columns` characters; the bar's cells count as one each although they are three bytes.
std::string cut(std::string text, int columns) {
  int seen = 0;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const bool begins = (static_cast<unsigned char>(text[i]) & 0xc0) != 0x80;
    if (begins && ++seen > columns) return text.substr(0, i);
  }
  return text;
}

}  // namespace

std::string duration_text(double seconds) {
  if (!(seconds >= 0 && seconds < 1e9)) return "?";
  const auto s = static_cast<std::int64_t>(std::llround(seconds));
  if (s < 60) return fmt::format("{} s", s);
  if (s < 3600) return fmt::format("{}:{:02}", s / 60, s % 60);
  return fmt::format("{}:{:02}:{:02}", s / 3600, s / 60 % 60, s % 60);
}

Progress::Progress(std::ostream& out, const Terminal& terminal, double total, double done, Clock clock)
    : out_(out),
      terminal_(terminal),
      style_(terminal.color),
      total_(total),
      first_(done),
      done_(done),
      clock_(clock ? std::move(clock) : Clock(steady_seconds)),
      start_(clock_()),
      last_(start_) {}

double Progress::rate() const {
  const double elapsed = seconds();
  return elapsed > 0 ? (done_ - first_) / elapsed : 0;
}

std::string Progress::line(std::string_view note, bool bar) const {
  const double share = total_ > 0 ? std::clamp(done_ / total_, 0.0, 1.0) : 1.0;
  const double speed = rate();
  std::string text = bar ? bar_text(share, terminal_.unicode) + " " : "";
  text += fmt::format("{:3.0f} %", std::floor(100 * share));
  // The time before the note: a narrow terminal cuts the end.
  if (speed > 0 && seconds() > kSettleSeconds)
    text += fmt::format("  {} left", duration_text((total_ - done_) / speed));
  if (!note.empty()) text += fmt::format("  {}", note);
  return text;
}

void Progress::erase() {
  if (drawn_) out_ << "\r\033[K";
  drawn_ = false;
}

void Progress::update(double done, std::string_view note) {
  done_ = done;
  if (finished_) return;
  const double now = clock_();
  if (now - last_ < (terminal_.interactive ? kRedrawSeconds : kPlainSeconds)) return;
  last_ = now;
  if (!terminal_.interactive) {
    out_ << line(note, false) << std::endl;
    return;
  }
  out_ << "\r\033[K" << style_.cyan(cut(line(note, true), std::max(terminal_.columns - 1, 10))) << std::flush;
  drawn_ = true;
}

void Progress::print(std::string_view text) {
  erase();
  out_ << text << std::endl;
}

void Progress::finish() {
  if (finished_) return;
  finished_ = true;
  erase();
  out_ << std::flush;
}

}  // namespace gradflow::app
