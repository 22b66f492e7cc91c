#include "apps/report/terminal.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <cmath>
#include <cstdlib>
#include <sstream>

#include "apps/report/headline.h"
#include "apps/report/pair_views.h"
#include "apps/report/study_view.h"
#include "apps/study/verdict.h"

namespace gradflow::app {
namespace {

constexpr int kCurve = 13;  // columns of the small curves
constexpr int kWide = 100;  // columns of the whole table; a narrower one has neither curves nor predictions

// ANSI colors; marks and words say the same without them.
std::string paint(const std::string& text, VerdictKind kind, const TerminalStyle& style) {
  if (!style.color) return text;
  const char* code = "0";
  switch (kind) {
    case VerdictKind::vanishes: code = "34"; break;
    case VerdictKind::explodes: code = "31"; break;
    case VerdictKind::healthy: code = "32"; break;
    case VerdictKind::dead: code = "1"; break;
    case VerdictKind::does_not_learn: code = "33"; break;
    case VerdictKind::diverged: code = "35"; break;
    case VerdictKind::not_measured: code = "2"; break;
  }
  return fmt::format("\033[{}m{}\033[0m", code, text);
}

std::string bold(const std::string& text, const TerminalStyle& style) {
  return style.color ? "\033[1m" + text + "\033[0m" : text;
}

std::string fit(std::string text, Charset charset) {
  return charset == Charset::ascii ? to_ascii(text) : text;
}

std::string left(const std::string& text, int columns) {
  return text + std::string(static_cast<std::size_t>(std::max(0, columns - display_width(text))), ' ');
}

std::string right(const std::string& text, int columns) {
  return std::string(static_cast<std::size_t>(std::max(0, columns - display_width(text))), ' ') + text;
}

// log10 of the gradient at step 0 relative to the last layer; NaN where there is none.
std::vector<double> curve(const NetworkResult& network) {
  std::vector<double> logs;
  if (network.moments.empty()) return logs;
  for (const LayerRow& row : network.moments.front().layers) {
    logs.push_back(std::log10(row.gradient_norm / network.moments.front().layers.back().gradient_norm));
  }
  return logs;
}

// The levels of the small curves: the thresholds, what is nearly level, and two more decades far out.
std::array<double, 7> curve_edges(const Thresholds& limits) {
  const double vanish = std::log10(limits.vanish_below), explode = std::log10(limits.explode_above);
  return {vanish - 17, vanish - 7, vanish, -0.5, 0.5, explode, explode + 7};
}

std::string curve_key(const Thresholds& limits, Charset charset) {
  const std::array<double, 7> edges = curve_edges(limits);
  std::string key;
  for (std::size_t i = 0; i <= edges.size(); ++i) {
    // A value inside each level draws its mark.
    const double value = i == 0              ? edges[0] - 1
                         : i == edges.size() ? edges.back() + 1
                                             : (edges[i - 1] + edges[i]) / 2;
    const std::string mark = sparkline({value}, edges, 1, charset);
    const double edge = i < 4 ? edges[i] : edges[i - 1];
    const std::string bound = edge == std::round(edge) ? power_of_ten(static_cast<int>(edge), charset)
                                                       : pretty(std::pow(10.0, edge), 1, charset);
    const std::string range = i == 4 ? "level" : (i < 4 ? "<" : ">") + bound;
    key += fmt::format("{}{} {}", key.empty() ? "" : "  ", mark, range);
  }
  return key;
}

std::string row_title(const NetworkResult& network) {
  if (network.yardstick) return "shallow";
  return fmt::format("{} {}{}", display(network.activation), display(network.init),
                     network.norm == "bn"     ? " BN"
                     : network.norm == "none" ? ""
                                              : " " + network.norm);
}

std::string long_title(const NetworkResult& network) {
  if (network.yardstick) return "shallow, the yardstick";
  return (network.residual ? "residual " : "plain ") + row_title(network);
}

std::string row(const StudyResult& study, const NetworkResult& network, const TerminalStyle& style) {
  const Charset charset = style.charset;
  const bool ascii = charset == Charset::ascii;
  const auto verdict = [&](const Verdict& v, int columns) {
    return paint(left(verdict_mark(v.kind, ascii) + " " + verdict_words(v.kind), columns), v.kind, style);
  };
  const Verdict& start = network.at_init;
  const bool wide = style.columns >= kWide;
  std::string line = left("  " + row_title(network), 20);
  if (wide) line += left(sparkline(curve(network), curve_edges(study.thresholds), kCurve, charset), kCurve);
  line += right(pretty(start.factor_per_layer, 3, charset), 8);
  if (wide) line += right(pretty(start.predicted_factor, 3, charset), 10);
  line += right(pretty(start.end_to_end, 2, charset), 10) +
          right(percent(shown_accuracy(network), 1, charset), 9);
  return line + "  " + verdict(start, 12) + verdict(network.trained, 0) + '\n';
}

std::string table(const StudyResult& study, const TerminalStyle& style) {
  const bool wide = style.columns >= kWide;
  const std::string curve_title = wide ? left(fit("layer 1 … L", style.charset), kCurve) : "";
  std::string text = bold(left("  network", 20) + curve_title + right("a layer", 8) + (wide ? right("predicted", 10) : "") +
                              right("arrives", 10) + right("accuracy", 9) + "  " + left("at step 0", 12) + "trained",
                          style) +
                     '\n';
  text += std::string(static_cast<std::size_t>(style.columns), '-') + '\n';
  std::string group;
  for (const NetworkResult& network : study.networks) {
    const std::string mine = network.yardstick ? "yardstick" : network.residual ? "residual" : "plain";
    if (mine != group) text += bold(mine, style) + '\n';
    group = mine;
    text += row(study, network, style);
  }
  text += '\n';
  if (wide) {
    text += fmt::format("Curves: {}\n", curve_key(study.thresholds, style.charset));
    text += wrap(
        "They show the gradient at step 0 by depth, relative to the last layer. Predicted: the factor per "
        "layer by mean-field theory. Arrives: layer 1 relative to the last.",
        style.columns, 0);
  } else {
    text += wrap("A layer: the factor per layer at step 0. Arrives: layer 1 relative to the last.", style.columns, 0);
  }
  return text + '\n';
}

std::string evidence(const StudyResult& study, const TerminalStyle& style) {
  std::string text = bold("Verdicts", style) + '\n';
  constexpr int kIndent = 17;
  const auto line = [&](const char* when, const Verdict& verdict) {
    const std::string words = verdict.headline.empty() ? verdict_words(verdict.kind) : verdict.headline;
    std::string block = wrap(fit(std::string(kIndent, ' ') + words + ": " + verdict.evidence, style.charset),
                             style.columns, kIndent);
    // Color goes on after wrapping, so that it does not count as width; words of a headline stand in the
    // first line.
    const std::size_t end = block.find(':');
    if (style.color && end != std::string::npos && block.find('\n') > end) {
      block = block.substr(0, kIndent) + paint(block.substr(kIndent, end - kIndent), verdict.kind, style) +
              block.substr(end);
    }
    return block.replace(0, kIndent, fmt::format("  {:<15}", when)) + '\n';
  };
  for (const NetworkResult& network : study.networks) {
    text += bold(long_title(network), style) + '\n';
    text += line("at step 0", network.at_init);
    text += line("trained", network.trained);
  }
  return text;
}

}  // namespace

std::string terminal_report(const StudyResult& study, const TerminalStyle& wanted) {
  TerminalStyle style = wanted;
  style.columns = std::max(80, style.columns);
  const Headline head = headline(study);
  std::string text = bold(fit(study.title, style.charset), style) + "\n\n";
  text += wrap(fit(head.claim, style.charset), style.columns, 0) + '\n';
  if (!head.detail.empty()) text += wrap(fit(head.detail, style.charset), style.columns, 0) + '\n';
  if (study.interrupted) {
    text +=
        wrap("INTERRUPTED: some networks are missing or were trained for fewer steps.", style.columns, 0) +
        '\n';
  }
  text += '\n' + table(study, style) + '\n' + evidence(study, style) + '\n';
  if (const std::string pair = pair_text(study, style); !pair.empty()) text += pair + '\n';
  text += wrap(fit(describe(study.thresholds), style.charset), style.columns, 0) + '\n';
  return text;
}

Charset locale_charset() {
  for (const char* name : {"LC_ALL", "LC_CTYPE", "LANG"}) {
    const char* value = std::getenv(name);
    if (value == nullptr || *value == '\0') continue;
    std::string text(value);
    std::transform(text.begin(), text.end(), text.begin(),
                   [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
    return text.find("utf-8") != std::string::npos || text.find("utf8") != std::string::npos ? Charset::utf8
                                                                                             : Charset::ascii;
  }
  return Charset::ascii;
}

std::string sparkline(const std::vector<double>& values, std::span<const double> edges, int width,
                      Charset charset) {
  constexpr std::array<std::string_view, 8> kBlocks = {"▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"};
  constexpr std::array<std::string_view, 8> kMarks = {"_", ".", ",", "-", "~", "+", "*", "#"};
  std::string text;
  const int count = static_cast<int>(values.size());
  const int columns = std::min(width, count);
  for (int c = 0; c < columns; ++c) {
    const double place = columns == 1 ? 0 : static_cast<double>(c) * (count - 1) / (columns - 1);
    const double value = values[static_cast<std::size_t>(std::lround(place))];
    if (std::isnan(value)) {
      text += ' ';
      continue;
    }
    const auto level = std::upper_bound(edges.begin(), edges.end(), value) - edges.begin();
    const auto& marks = charset == Charset::ascii ? kMarks : kBlocks;
    text += marks[std::min<std::size_t>(static_cast<std::size_t>(level), marks.size() - 1)];
  }
  return text;
}

std::string wrap(const std::string& text, int columns, int indent) {
  std::string out;
  int used = 0;
  // Spaces in front of the first word stay.
  const std::size_t margin = text.find_first_not_of(' ');
  if (margin == std::string::npos) return "";
  out.assign(margin, ' ');
  used = static_cast<int>(margin);
  bool line_start = true;
  std::istringstream words(text);
  for (std::string word; words >> word;) {
    const int length = display_width(word);
    if (!line_start && used + 1 + length > columns) {
      out += '\n' + std::string(static_cast<std::size_t>(indent), ' ');
      used = indent;
      line_start = true;
    }
    if (!line_start) {
      out += ' ';
      ++used;
    }
    out += word;
    used += length;
    line_start = false;
  }
  return out;
}

int display_width(const std::string& utf8) {
  return static_cast<int>(std::count_if(
      utf8.begin(), utf8.end(), [](char c) { return (static_cast<unsigned char>(c) & 0xC0) != 0x80; }));
}

}  // namespace gradflow::app
