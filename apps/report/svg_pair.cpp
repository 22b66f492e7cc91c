#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "apps/report/numbers.h"
#include "apps/report/pair_views.h"
#include "apps/report/svg_writer.h"
#include "apps/study/pair_claims.h"

namespace gradflow::app {
namespace {

// One row of the figure: its name, and what is drawn of a layer, given the layer at step 0 as well.
struct Quantity {
  const char* title;
  double (*value)(const LayerRow& row, const LayerRow& start);
};
constexpr std::array<Quantity, 3> kQuantities = {{
    {"gradient |∂L/∂z|", [](const LayerRow& row, const LayerRow&) { return row.gradient_norm; }},
    {"effective rate lr/|W|², step 0 = 1",
     [](const LayerRow& row, const LayerRow& start) { return row.effective_rate / start.effective_rate; }},
    {"angle this step’s gradient turns W by, radians",
     [](const LayerRow& row, const LayerRow&) { return turn(row); }},
}};

struct Area {
  double left, top, right, bottom;
};

const Moment* moment_at(const NetworkResult& network, int step) {
  const auto found = std::ranges::find(network.moments, step, &Moment::step);
  return found == network.moments.end() ? nullptr : &*found;
}

// log10 by layer, NaN where there is none; the head's layer is left out.
std::vector<double> logs(const NetworkResult& network, int step, const Quantity& q) {
  std::vector<double> y;
  const Moment *m = moment_at(network, step), *start = moment_at(network, 0);
  if (!m || !start) return y;
  for (std::size_t l = 0; l + 1 < m->layers.size(); ++l) {
    const double v = q.value(m->layers[l], start->layers[l]);
    y.push_back(v > 0 ? std::log10(v) : kMissing);
  }
  return y;
}

struct LogRange {
  double low = kMissing, high = kMissing;
  bool empty() const { return !(high >= low); }
};

// Over both networks and all steps, so that the two panels of a row can be compared.
LogRange range_of(const PairResult& pair, const std::vector<int>& steps, const Quantity& q) {
  LogRange r;
  for (const NetworkResult& n : pair.networks)
    for (const int step : steps)
      for (const double y : logs(n, step, q)) r.low = std::fmin(r.low, y), r.high = std::fmax(r.high, y);
  if (r.empty()) return r;
  return {std::floor(r.low - 0.05), std::ceil(r.high + 0.05)};
}

void draw_panel(SvgWriter& svg, const NetworkResult& network, const std::vector<int>& steps,
                const Quantity& q, const LogRange& range, const Area& a) {
  const double last = std::max(2, network.depth - 1);
  const auto x = [&](double layer) { return a.left + (a.right - a.left) * (layer - 1) / (last - 1); };
  const auto y = [&](double log) {
    return a.bottom - (a.bottom - a.top) * (log - range.low) / (range.high - range.low);
  };
  svg.rect(a.left, a.top, a.right - a.left, a.bottom - a.top, "panel");
  for (const double tick : nice_ticks(range.low, range.high, 6)) {
    if (tick != std::round(tick)) continue;
    svg.line({a.left, y(tick)}, {a.right, y(tick)}, tick == 0 ? "zero" : "grid");
    svg.text({a.left - 5, y(tick) + 4}, power_of_ten(static_cast<int>(tick)), "tick end");
  }
  for (const double tick : {1.0, 10.0, 20.0, 30.0, 40.0, 50.0})
    if (tick <= last) svg.text({x(tick), a.bottom + 16}, fmt::format("{:.0f}", tick), "tick middle");
  svg.text({(a.left + a.right) / 2, a.bottom + 32}, "convolution, from the input", "soft middle");
  for (std::size_t s = 0; s < steps.size(); ++s) {
    const std::vector<double> curve = logs(network, steps[s], q);
    std::vector<Point> points;
    for (std::size_t l = 0; l < curve.size(); ++l)
      points.push_back({x(static_cast<double>(l) + 1), y(curve[l])});
    svg.path(points, fmt::format("curve thin t{}", s));
  }
}

void draw_key(SvgWriter& svg, const std::vector<int>& steps, Point at) {
  for (std::size_t s = 0; s < steps.size(); ++s, at.x += 92) {
    svg.line({at.x, at.y - 4}, {at.x + 22, at.y - 4}, fmt::format("curve t{}", s));
    svg.text({at.x + 27, at.y}, fmt::format("step {}", steps[s]), fmt::format("tick t{}", s));
  }
}

}  // namespace

std::optional<Figure> pair_figure(const StudyResult& study) {
  if (!study.pair || study.pair->networks.empty()) return std::nullopt;
  const PairResult& pair = *study.pair;
  const std::vector<int> steps = pair_steps(pair);
  constexpr double kWidth = 500, kHeight = 290, kTop = 124;
  const std::string title = "plain-56 and ResNet-56 with batch norm in their first steps";
  const std::string description =
      "By layer and step; both networks of a row on one scale. z: a convolution’s output, before its batch "
      "norm.";
  SvgWriter svg(20 + kWidth * static_cast<double>(pair.networks.size()), kTop + kHeight * kQuantities.size(),
                title, description);
  svg.text({20, 34}, title, "title");
  svg.text({20, 57}, description, "soft");
  draw_key(svg, steps, {20, 82});
  bool any = false;
  for (std::size_t row = 0; row < kQuantities.size(); ++row) {
    const LogRange range = range_of(pair, steps, kQuantities[row]);
    if (range.empty()) continue;
    any = true;
    for (std::size_t column = 0; column < pair.networks.size(); ++column) {
      const double left = 20 + kWidth * static_cast<double>(column),
                   top = kTop + kHeight * static_cast<double>(row);
      svg.text({left + 44, top - 8}, fmt::format("{}: {}", pair_name(pair.networks[column]), kQuantities[row].title),
               "head");
      draw_panel(svg, pair.networks[column], steps, kQuantities[row], range,
                 {left + 44, top, left + kWidth - 12, top + kHeight - 70});
    }
  }
  if (!any) return std::nullopt;
  return Figure{"first-steps.svg", svg.finish()};
}

}  // namespace gradflow::app
