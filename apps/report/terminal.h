// The study on a terminal: at most 100 columns, with or without color, in UTF-8 or plain ASCII.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "apps/report/numbers.h"
#include "apps/study/results.h"

namespace gradflow::app {

struct TerminalStyle {
  bool color = false;
  Charset charset = Charset::utf8;
  int columns = 100;  // lines are at most this long (at least 80 are assumed; below 100 the table says less)
};

// The answer, a table of all networks with a small curve each, every verdict with its evidence, and the
// thresholds. Ends with a line break.
std::string terminal_report(const StudyResult& study, const TerminalStyle& style = {});

// utf8 if the locale of the environment (LC_ALL, LC_CTYPE, LANG) says so.
Charset locale_charset();

// One character per value, by the number of edges (ascending, at most 7) that it reaches: ▁ for none, █ for
// seven (ASCII: eight marks); blank for NaN. Values are thinned out to `width`.
std::string sparkline(const std::vector<double>& values, std::span<const double> edges, int width,
                      Charset charset = Charset::utf8);

// Breaks text at spaces into lines of at most `columns` characters; lines after the first begin with `indent`
// spaces. A longer word stands alone and sticks out.
std::string wrap(const std::string& text, int columns, int indent);

// Characters (not bytes) of UTF-8 text, which is how many columns our texts take.
int display_width(const std::string& utf8);

}  // namespace gradflow::app
