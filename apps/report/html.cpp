#include "apps/report/html.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <utility>
#include <vector>

#include "apps/report/assets.h"
#include "apps/report/columns.h"
#include "apps/report/findings.h"
#include "apps/report/headline.h"
#include "apps/report/json.h"
#include "apps/report/numbers.h"
#include "apps/report/pair_views.h"
#include "apps/report/study_view.h"
#include "apps/study/verdict.h"
#include "gradflow/kernels/error.h"

namespace gradflow::app {
namespace {

// In the order of loading: base.js defines what the others use, main.js starts.
constexpr std::array<std::string_view, 9> kScripts = {"base.js",   "hero.js", "matrix.js",   "charts.js", "heatmap.js",
                                                      "panels.js", "pair.js", "controls.js", "main.js"};

// An embedded script must not end its own <script> element.
std::string script_text(std::string_view name) {
  std::string text(asset(name));
  if (text.find("</script") != std::string::npos || text.find("<!--") != std::string::npos) {
    throw InternalError(
        fmt::format("embedded file '{}' holds a text that would end a <script> element", name));
  }
  return text;
}

// Escaped, with σ_w as a symbol with its index.
std::string prose(std::string_view text) {
  std::string html = html_escape(text);
  const std::string_view plain = "σ_w";
  for (std::size_t at = html.find(plain); at != std::string::npos; at = html.find(plain, at + 1)) {
    html.replace(at, plain.size(), "σ<sub>w</sub>");
  }
  return html;
}

// What the page shows beside the study and would otherwise have to judge itself: the verdict on the gradient
// of every moment and the factor per layer that was fitted to it, the accuracy that counts as learning, and
// the steps to draw of the pair.
nlohmann::ordered_json derived(const StudyResult& study) {
  nlohmann::ordered_json kinds = nlohmann::ordered_json::object(), factors = kinds;
  for (const NetworkResult& network : study.networks) {
    nlohmann::ordered_json list = nlohmann::ordered_json::array(), fits = list;
    NetworkResult single;
    single.depth = network.depth;
    for (const Moment& moment : network.moments) {
      single.moments.assign(1, moment);
      const Verdict verdict = judge_at_init(single, study.thresholds);
      list.push_back(verdict_name(verdict.kind));
      fits.push_back(round_digits(verdict.factor_per_layer));  // NaN becomes null
    }
    kinds[network.id] = std::move(list);
    factors[network.id] = std::move(fits);
  }
  const std::vector<int> pair = study.pair ? pair_steps(*study.pair) : std::vector<int>{};
  return {{"pair_steps", pair},
          {"kinds", std::move(kinds)},
          {"factors", std::move(factors)},
          {"learning_bar", learning_bar(study)},
          {"chance", chance(study)}};
}

// Paths may hold bytes that are no UTF-8; those become U+FFFD, as in report.json.
std::string one_line(const nlohmann::ordered_json& json) {
  return json.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
}

std::string mark(VerdictKind kind) {
  return fmt::format("<span class=\"mark-{}\" aria-hidden=\"true\">{}</span>", verdict_name(kind),
                     verdict_mark(kind));
}

std::string verdict_cell(const Verdict& verdict, std::string_view label) {
  const std::string words = verdict.headline.empty() ? verdict_words(verdict.kind) : verdict.headline;
  return fmt::format("<td data-label=\"{}\"><b>{} {}</b><small>{}</small></td>", label, mark(verdict.kind),
                     html_escape(words), html_escape(verdict.evidence));
}

std::string verdict_rows(const StudyResult& study) {
  std::string rows;
  for (const NetworkResult& network : study.networks) {
    rows += fmt::format("<tr><th scope=\"row\">{}{}</th>{}{}<td data-label=\"Accuracy\">{}</td></tr>\n",
                        html_escape(network.title), network.yardstick ? "<small>the yardstick</small>" : "",
                        verdict_cell(network.at_init, "At initialization"),
                        verdict_cell(network.trained, "After training"), percent(shown_accuracy(network)));
  }
  return rows;
}

std::string finding_cards(const StudyResult& study) {
  std::string cards;
  for (const Finding& finding : findings(study)) {
    std::string theory;
    if (finding.theory == Finding::Theory::agrees)
      theory = "<p class=\"theory theory-agrees\">✓ agrees with theory</p>";
    if (finding.theory == Finding::Theory::differs) {
      theory = "<p class=\"theory theory-differs\">≠ not all of it agrees with theory</p>";
    }
    cards += fmt::format(
        "<article class=\"finding\" id=\"finding-{}\">{}<h3>{}</h3><p>{}</p><p "
        "class=\"why\">{}</p></article>\n",
        html_escape(finding.id), theory, html_escape(finding.title), prose(finding.measured),
        prose(finding.why));
  }
  return cards;
}

// "2026-11-23 14:00:00" of "2026-11-23T14:00:00Z".
std::string spaced_date(std::string date) {
  std::ranges::replace(date, 'T', ' ');
  if (date.ends_with('Z')) date.pop_back();
  return date;
}

std::string held_out_text(const StudyResult& study) {
  if (study.held_out_last == 0) return "";
  if (study.held_out == study.held_out_last) return fmt::format("{} images behind every accuracy", study.held_out_last);
  return fmt::format("the first {} images behind a point of a curve and the dead units of that step; {} behind the last step's",
                     study.held_out, study.held_out_last);
}

std::string settings_rows(const StudyResult& study) {
  std::string rows;
  const auto row = [&](std::string_view name, const std::string& value, bool code = false) {
    if (value.empty()) return;
    rows += fmt::format("<dt>{}</dt><dd>{}{}{}</dd>\n", name, code ? "<code>" : "", html_escape(value),
                        code ? "</code>" : "");
  };
  row("To repeat", study.command, true);
  row("Data", study.data);
  row("Training", fmt::format("{} steps, batches of {}", study.steps, study.batch));
  row("Held-out data", held_out_text(study));
  row("Optimizer", study.optimizer);
  row("Schedule", study.schedule);
  row("Seed", fmt::format("{}; {} initialization{} measured at step 0", study.seed, study.init_seeds,
                          study.init_seeds == 1 ? "" : "s"));
  row("Device", study.device_model.empty() ? study.device : study.device + ": " + study.device_model);
  row("Precision", study.precision);
  row("Libraries", study.libraries);
  row("Program", fmt::format("gradflow {}, git {}", study.gradflow_version, study.git_revision));
  row("Build", study.build);
  row("Run", fmt::format("{} UTC, {:.0f} s", spaced_date(study.date_utc), study.seconds));
  for (const NetworkResult& network : study.networks) {
    if (!network.yardstick) {
      row("A network", fmt::format("{} ({} parameters)", network.model_spec, network.parameters), true);
      break;
    }
  }
  if (const NetworkResult* shallow = yardstick(study)) row("The yardstick", shallow->model_spec, true);
  return rows;
}

std::string verdict_key() {
  std::string key;
  for (const VerdictKind kind :
       {VerdictKind::vanishes, VerdictKind::explodes, VerdictKind::healthy, VerdictKind::dead,
        VerdictKind::does_not_learn, VerdictKind::diverged, VerdictKind::not_measured}) {
    key += fmt::format("<span>{} {}</span>", mark(kind), verdict_words(kind));
  }
  return key;
}

std::string kicker(const StudyResult& study) {
  int depth = 0;
  std::size_t networks = 0;
  for (const NetworkResult& network : study.networks) {
    if (network.yardstick) continue;
    depth = std::max(depth, network.depth);
    ++networks;
  }
  return fmt::format("{} network{} of {} layers · {} · seed {} · {}", networks, networks == 1 ? "" : "s", depth,
                     study.data.substr(0, study.data.find(": ")), study.seed, study.date_utc.substr(0, 10));
}

// The title as heading: up to its question mark, if it has one; the rest is said by the line above.
std::string question(const StudyResult& study) {
  if (study.title.empty()) return "Where did the gradient go?";
  const std::size_t end = study.title.find("? ");
  return end == std::string::npos ? study.title : study.title.substr(0, end + 1);
}

}  // namespace

std::string html_escape(std::string_view text) {
  std::string escaped;
  escaped.reserve(text.size());
  for (const char c : text) {
    switch (c) {
      case '&': escaped += "&amp;"; break;
      case '<': escaped += "&lt;"; break;
      case '>': escaped += "&gt;"; break;
      case '"': escaped += "&quot;"; break;
      case '\'': escaped += "&#39;"; break;
      default: escaped += c;
    }
  }
  return escaped;
}

std::string json_for_script(std::string json) {
  std::string escaped;
  escaped.reserve(json.size());
  for (const char c : json) {
    if (c == '<') {
      escaped += "\\u003c";
    } else {
      escaped += c;
    }
  }
  return escaped;
}

std::string fill_template(std::string_view text,
                          const std::vector<std::pair<std::string_view, std::string>>& values) {
  std::string filled;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t open = text.find("{{", at);
    if (open == std::string_view::npos) return filled += text.substr(at);
    const std::size_t close = text.find("}}", open);
    if (close == std::string_view::npos) throw InternalError("a {{ without }} in a template");
    const std::string_view name = text.substr(open + 2, close - open - 2);
    const std::string* value = nullptr;
    for (const auto& [key, content] : values) {
      if (key == name) value = &content;
    }
    if (value == nullptr) throw InternalError(fmt::format("nothing to put in for {{{{{}}}}}", name));
    filled += text.substr(at, open - at);
    filled += *value;
    at = close + 2;
  }
  return filled;
}

std::string report_html(const StudyResult& study) {
  const Headline head = headline(study);
  std::string script;
  for (const std::string_view name : kScripts) script += script_text(name) + '\n';
  const std::string interrupted =
      study.interrupted
          ? "<p class=\"notice\"><b>Interrupted.</b> This study was stopped before its end: what is shown is "
            "valid, but some networks are missing or were trained for fewer steps.</p>"
          : "";
  return fill_template(
      asset("report.html"),
      {{"title", html_escape(study.title.empty() ? "Where did the gradient go?" : study.title)},
       {"version", html_escape(study.gradflow_version)},
       {"headline", html_escape(question(study))},
       {"kicker", html_escape(kicker(study))},
       {"claim", html_escape(head.claim)},
       {"detail", html_escape(head.detail)},
       {"interrupted", interrupted},
       {"agreement", percent(kAgreement, 0)},
       {"findings", finding_cards(study)},
       {"pair", pair_section(study)},
       {"verdict_key", verdict_key()},
       {"thresholds", prose(describe(study.thresholds))},
       {"verdicts", verdict_rows(study)},
       {"settings", settings_rows(study)},
       {"footer", html_escape(fmt::format("Made by gradflow {} ({}). The same numbers are in report.json and "
                                          "layers.csv beside this file. Charts: Chart.js (MIT license).",
                                          study.gradflow_version, study.git_revision))},
       {"style", std::string(asset("report.css"))},
       {"study", json_for_script(one_line(to_json(study)))},
       {"derived", json_for_script(one_line(derived(study)))},
       {"chart_js", script_text("chart.js")},
       {"script", script}});
}

}  // namespace gradflow::app
