#include "apps/report/pair_views.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <iterator>

#include "apps/report/html.h"
#include "apps/report/numbers.h"
#include "apps/study/pair_claims.h"

namespace gradflow::app {
namespace {

constexpr std::size_t kMostCurves = 6;

const char* answer_class(PairClaim::Answer a) {
  return a == PairClaim::Answer::holds   ? "theory-agrees"
         : a == PairClaim::Answer::fails ? "theory-differs"
                                         : "theory-open";
}

const char* answer_text(PairClaim::Answer a) {
  return a == PairClaim::Answer::holds   ? "✓ holds in this run"
         : a == PairClaim::Answer::fails ? "✕ does not hold in this run"
                                         : "○ cannot be judged from this run";
}

std::string cards(const std::vector<PairClaim>& claims) {
  std::string html;
  for (const PairClaim& c : claims)
    fmt::format_to(std::back_inserter(html),
                   "<article class=\"finding\" id=\"pair-{}\"><p class=\"theory "
                   "{}\">{}</p><h3>{}</h3><p>{}</p><p class=\"why\">{}</p>"
                   "<p class=\"why\"><b>Holds if:</b> {}.</p></article>\n",
                   html_escape(c.id), answer_class(c.answer), answer_text(c.answer), html_escape(c.claim),
                   html_escape(c.measured), html_escape(c.expected), html_escape(c.rule));
  return html;
}

// Measured, and in brackets the simulation's.
std::string cell(double measured, double simulated, int digits) {
  std::string html = pretty(measured, digits);
  if (std::isfinite(simulated)) html += fmt::format(" <small>({})</small>", pretty(simulated, digits));
  return "<td>" + html + "</td>";
}

std::string growth_cell(double measured, double simulated) {  // all of them near 1
  return std::isfinite(simulated)
             ? fmt::format("<td>{:.3f} <small>({:.3f})</small></td>", measured, simulated)
             : fmt::format("<td>{:.3f}</td>", measured);
}

std::string table(const PairResult& pair) {
  std::string html =
      "<div class=\"table-box pair-table\" tabindex=\"0\"><table><thead><tr><th scope=\"col\">network, "
      "step</th><th scope=\"col\">growth of "
      "|∂L/∂z| a layer</th><th scope=\"col\">|∂L/∂W| first / last convolution</th><th scope=\"col\">|W| of "
      "the first</th><th scope=\"col\">early "
      "<span class=\"together\">lr/|W|²,</span> step 0 = 1</th><th scope=\"col\">angle turned in radians, early / late</th><th "
      "scope=\"col\">update ratio, early / late</th><th scope=\"col\">loss of the "
      "batch</th></tr></thead><tbody>\n";
  for (const NetworkResult& n : pair.networks) {
    for (const Moment& m : n.moments) {
      const auto f = pair_figures(n, m.step);
      if (!f) continue;
      const PairFigures s = simulated_figures(n, m.step).value_or(PairFigures{});
      fmt::format_to(std::back_inserter(html),
                     "<tr><th scope=\"row\">{}, {}</th>{}{}{}{}<td>{} / {}</td><td>{} / {}</td>{}</tr>\n",
                     html_escape(pair_name(n)), m.step, growth_cell(f->growth, s.growth),
                     cell(f->weight_gradient_ratio, s.weight_gradient_ratio, 3),
                     cell(f->first_weight_norm, s.first_weight_norm, 3), cell(f->early_rate, kMissing, 2),
                     pretty(f->early_turn, 2), pretty(f->late_turn, 2), pretty(f->early_update, 2),
                     pretty(f->late_update, 2), cell(f->loss, s.loss, 3));
    }
  }
  return html + "</tbody></table></div>\n";
}

std::string what_ran(const PairResult& pair) {
  return fmt::format("{}; batches of {}, {}, {} steps{}{}", pair.data, pair.batch, pair.optimizer, pair.steps,
                     pair.full_size ? "; full size" : "",
                     pair.reduction.empty() ? "" : "; reduced: " + pair.reduction);
}

std::string paint(const std::string& text, const char* code, const TerminalStyle& style) {
  return style.color ? fmt::format("\033[{}m{}\033[0m", code, text) : text;
}

}  // namespace

std::string pair_name(const NetworkResult& network) { return network.title.substr(0, network.title.find(',')); }

std::vector<int> pair_steps(const PairResult& pair) {
  std::vector<int> steps;
  for (const NetworkResult& n : pair.networks)
    for (const Moment& m : n.moments) steps.push_back(m.step);
  std::ranges::sort(steps);
  const auto rest = std::ranges::unique(steps);
  steps.erase(rest.begin(), rest.end());
  if (steps.size() <= kMostCurves) return steps;
  // The first four; then step 40, with which the simulation ends, or the middle one of the others; the last.
  const auto forty = std::find(steps.begin() + 4, steps.end() - 1, 40);
  const int middle = forty != steps.end() - 1 ? *forty : steps[(steps.size() + 3) / 2];
  return {steps[0], steps[1], steps[2], steps[3], middle, steps.back()};
}

std::string pair_section(const StudyResult& study) {
  if (!study.pair) return "";
  const PairResult& pair = *study.pair;
  const std::vector<PairClaim> claims = pair_claims(pair, study.thresholds);
  std::string html =
      "<section class=\"wrap\" id=\"pair\" aria-labelledby=\"pair-title\">\n<div class=\"section-head\"><h2 "
      "id=\"pair-title\">The pair the "
      "argument is about: plain-56 and ResNet-56</h2>\n";
  if (!pair.why_not.empty())
    return html +
           fmt::format("<p class=\"sub\">{}</p></div></section>", html_escape(pair_summary(pair, claims)));
  fmt::format_to(std::back_inserter(html),
                 "<p class=\"sub\">The networks of He et al. 2015 with batch norm, 56 layers, without and "
                 "with skips, from the same weights and on "
                 "the same batches. What ran: {}. One network each. {}</p></div>\n",
                 html_escape(what_ran(pair)), html_escape(pair_summary(pair, claims)));
  html += "<div class=\"findings\">\n" + cards(claims) +
          "</div>\n<div class=\"panels\" id=\"pair-panels\"></div>\n";
  html +=
      "<h3>The first steps in numbers</h3><p class=\"sub\">In brackets: an independent simulation (NumPy, "
      "f64) of the same two networks on "
      "synthetic images of 32×32×3, batch norm without trained scale, one seed. Early and late: the first "
      "and the last quarter of "
      "the convolutions, geometric means. Growth: (|∂L/∂z| of convolution 2 over that of the last)^(1/53). Angle "
      "turned: arctan(lr·|∂L/∂W|/|W|), the gradient being orthogonal to W; π/2 is the most. Weight decay alone "
      "gives an update ratio of lr·decay/(1 − momentum), 10⁻⁴ with the paper’s numbers, and turns nothing; the "
      "update ratio holds momentum as well. Here z is the output of a convolution, before its batch "
      "norm, in both networks; the head does not "
      "count.</p>\n";
  return html + table(pair) + "</section>\n";
}

std::string pair_text(const StudyResult& study, const TerminalStyle& style) {
  if (!study.pair) return "";
  const PairResult& pair = *study.pair;
  const auto fit = [&](const std::string& text) {
    return style.charset == Charset::ascii ? to_ascii(text) : text;
  };
  const std::vector<PairClaim> claims = pair_claims(pair, study.thresholds);
  std::string text = paint("The pair: plain-56 and ResNet-56 with batch norm", "1", style) + '\n';
  if (!pair.why_not.empty())
    return text + wrap("  " + fit(pair_summary(pair, claims)), style.columns, 2) + '\n';
  text += wrap("  " + fit(what_ran(pair)), style.columns, 2) + '\n';
  for (const PairClaim& c : claims) {
    const bool holds = c.answer == PairClaim::Answer::holds, fails = c.answer == PairClaim::Answer::fails;
    const std::string answer = holds ? "holds" : fails ? "fails" : "open ";
    std::string block = wrap(fit("         " + c.claim + ". " + c.measured), style.columns, 9);
    text += "  " + paint(answer, holds ? "32" : fails ? "31" : "2", style) + block.substr(7) + '\n';
  }
  return text;
}

}  // namespace gradflow::app
