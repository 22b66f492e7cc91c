// What the terminal can show, and text in its colors.
#pragma once

#include <string>
#include <string_view>

namespace gradflow::app {

struct Terminal {
  bool interactive = false;  // lines may be redrawn in place
  bool color = false;
  bool unicode = false;
  int columns = 100;
};

// Of a file descriptor: 1 for standard output. No colors without a terminal, on TERM=dumb or if NO_COLOR is
// set and not empty (no-color.org).
Terminal detect_terminal(int descriptor);

// Wraps text in escape sequences, or returns it as it is.
class Style {
 public:
  explicit Style(bool color = false) : color_(color) {}

  std::string bold(std::string_view text) const { return wrap("1", text); }
  std::string dim(std::string_view text) const { return wrap("2", text); }
  std::string red(std::string_view text) const { return wrap("31", text); }
  std::string green(std::string_view text) const { return wrap("32", text); }
  std::string yellow(std::string_view text) const { return wrap("33", text); }
  std::string cyan(std::string_view text) const { return wrap("36", text); }

 private:
  bool color_;
  std::string wrap(std::string_view code, std::string_view text) const;
};

}  // namespace gradflow::app
