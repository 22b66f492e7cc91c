#include "apps/report/svg.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <optional>

#include "apps/report/numbers.h"
#include "apps/report/pair_views.h"
#include "apps/report/study_view.h"
#include "apps/report/svg_parts.h"
#include "apps/report/svg_writer.h"

namespace gradflow::app {
namespace {

struct Curve {
  std::vector<double> x, y;
};

// One figure of small multiples: what it plots, and how the axes are named.
struct Plot {
  std::string file_name, title, description, x_title;
  bool logarithmic = true;
  bool percent = false;
  bool bands = false;       // tint what is beyond the thresholds
  bool labels_left = true;  // at the first point of each curve, else at the last
  std::function<Curve(const NetworkResult&)> curve;
  std::function<Curve(const NetworkResult&)> prediction;  // may be empty
  bool with_yardstick = false;
};

struct Frame {
  double left, top, right, bottom;      // the plotting area
  double low_x, high_x, low_y, high_y;  // of the data; logarithms if the axis is logarithmic
  double x(double value) const { return left + (right - left) * (value - low_x) / (high_x - low_x); }
  double y(double value) const { return bottom - (bottom - top) * (value - low_y) / (high_y - low_y); }
};

double to_axis(const Plot& plot, double value) {
  if (!plot.logarithmic) return value;
  return value > 0 ? std::log10(value) : kMissing;
}

// Over all networks of an activation, so that the panels of a row can be compared.
std::optional<Frame> ranges(const StudyResult& study, const Plot& plot, const std::string& activation) {
  Frame frame{0, 0, 0, 0, kMissing, kMissing, kMissing, kMissing};
  for (const NetworkResult& network : study.networks) {
    if (network.yardstick ? !plot.with_yardstick : network.activation != activation) continue;
    // The loss of a network that diverges would flatten all others; it leaves the picture instead.
    if (!plot.logarithmic && !plot.percent && network.diverged_at) continue;
    const Curve curve = plot.curve(network);
    for (std::size_t i = 0; i < curve.x.size(); ++i) {
      const double y = to_axis(plot, curve.y[i]);
      if (!std::isfinite(y)) continue;
      // fmin and fmax pass over NaN.
      frame.low_x = std::fmin(frame.low_x, curve.x[i]);
      frame.high_x = std::fmax(frame.high_x, curve.x[i]);
      frame.low_y = std::fmin(frame.low_y, y);
      frame.high_y = std::fmax(frame.high_y, y);
    }
  }
  if (!(frame.high_x > frame.low_x)) return std::nullopt;
  if (plot.logarithmic) {
    const double room = frame.high_y - frame.low_y > 8 ? 1 : 0.3;
    frame.low_y = std::floor(frame.low_y) - room;
    frame.high_y = std::ceil(frame.high_y) + room;
  } else {
    frame.low_y = 0;
    frame.high_y = plot.percent ? 1 : frame.high_y * 1.05;
  }
  if (!(frame.high_y > frame.low_y)) frame.high_y = frame.low_y + 1;
  return frame;
}

void draw_axes(SvgWriter& svg, const StudyResult& study, const Plot& plot, const Frame& frame) {
  svg.rect(frame.left, frame.top, frame.right - frame.left, frame.bottom - frame.top, "panel");
  if (plot.bands) {
    const double vanish =
        std::clamp(frame.y(std::log10(study.thresholds.vanish_below)), frame.top, frame.bottom);
    const double explode =
        std::clamp(frame.y(std::log10(study.thresholds.explode_above)), frame.top, frame.bottom);
    svg.rect(frame.left, vanish, frame.right - frame.left, frame.bottom - vanish, "vanish-band");
    svg.rect(frame.left, frame.top, frame.right - frame.left, explode - frame.top, "explode-band");
  }
  for (const double tick : nice_ticks(frame.low_y, frame.high_y, 6)) {
    if (plot.logarithmic && tick != std::round(tick)) continue;
    const double y = frame.y(tick);
    svg.line({frame.left, y}, {frame.right, y}, plot.logarithmic && tick == 0 ? "zero" : "grid");
    const std::string text = plot.logarithmic ? power_of_ten(static_cast<int>(tick))
                             : plot.percent   ? percent(tick, 0)
                                              : pretty(tick, 2);
    if (plot.labels_left) {
      svg.text({frame.right + 5, y + 4}, text, "tick");
    } else {
      svg.text({frame.left - 5, y + 4}, text, "tick end");
    }
  }
  for (const double tick : nice_ticks(frame.low_x, frame.high_x, 6)) {
    if (tick > 0 || !plot.labels_left)
      svg.text({frame.x(tick), frame.bottom + 16}, fmt::format("{:.0f}", tick), "tick middle");
  }
  if (plot.labels_left) svg.text({frame.x(1), frame.bottom + 16}, "1", "tick middle");
  svg.text({(frame.left + frame.right) / 2, frame.bottom + 33}, plot.x_title, "soft middle");
}

std::vector<Point> on_page(const Plot& plot, const Frame& frame, const Curve& curve) {
  std::vector<Point> points;
  for (std::size_t i = 0; i < curve.x.size(); ++i) {
    // An exact zero lies on the floor of a logarithmic picture.
    const bool zero = plot.logarithmic && curve.y[i] == 0;
    const double y = zero ? frame.bottom : frame.y(to_axis(plot, curve.y[i]));
    points.push_back({frame.x(curve.x[i]), y < frame.top ? frame.top : y});
  }
  return points;
}

void draw_panel(SvgWriter& svg, const StudyResult& study, const Plot& plot, const Frame& frame,
                const std::vector<const NetworkResult*>& networks) {
  struct Label {
    Point end;
    std::string text, css;
  };
  draw_axes(svg, study, plot, frame);
  std::vector<Label> labels;
  if (const NetworkResult* shallow = yardstick(study); shallow && plot.with_yardstick) {
    const std::vector<Point> points = on_page(plot, frame, plot.curve(*shallow));
    svg.path(points, "dotted");
    if (!points.empty() && std::isfinite(points.back().y))
      labels.push_back({points.back(), "shallow", "soft"});
  }
  for (const NetworkResult* network : networks) {
    const std::vector<Point> points = on_page(plot, frame, plot.curve(*network));
    const std::string css = fmt::format("{}-{}", network->residual ? "residual" : "plain",
                                        network->init == "he" ? "he" : "xavier");
    svg.path(points, "curve " + css);
    if (plot.prediction) svg.path(on_page(plot, frame, plot.prediction(*network)), "prediction");
    const auto known = [](const Point& p) { return std::isfinite(p.y); };
    const auto first = std::find_if(points.begin(), points.end(), known);
    const auto last = std::find_if(points.rbegin(), points.rend(), known);
    if (first == points.end()) continue;
    const Point end = plot.labels_left ? *first : *last;
    svg.circle(end, 3.4, fmt::format("dot {} {}", network->init == "he" ? "full" : "hollow", css));
    // A curve that ends early, because its network diverged, says so.
    const bool cut = !plot.labels_left && network->diverged_at.has_value();
    labels.push_back({end,
                      fmt::format("{} {}{}", network->residual ? "residual" : "plain", display(network->init),
                                  cut ? " ✕" : ""),
                      css});
  }
  std::vector<double> wanted;
  for (const Label& label : labels) wanted.push_back(label.end.y);
  const std::vector<double> placed = spread_labels(wanted, 15, frame.top + 2, frame.bottom - 2);
  const double side = plot.labels_left ? -1 : 1;
  for (std::size_t i = 0; i < labels.size(); ++i) {
    const double edge = plot.labels_left ? frame.left : frame.right;
    const bool near = std::abs(labels[i].end.x - edge) < 40;
    if (near)
      svg.line({edge + side * 18, placed[i]}, {labels[i].end.x + side * 4, labels[i].end.y}, "leader");
    svg.text({edge + side * 21, placed[i] + 4}, labels[i].text,
             plot.labels_left ? "label " + labels[i].css : "tick " + labels[i].css);
  }
}

// Rows: activations. Columns: norms. Lines: plain and residual, by initialization.
std::optional<Figure> small_multiples(const StudyResult& study, const Plot& plot) {
  const Levels levels = factorial_levels(study);
  bool any = false;
  constexpr double kWidth = 500, kHeight = 275, kTop = 92;
  const double width = 20 + kWidth * static_cast<double>(levels.norms.size());
  const double height = kTop + kHeight * static_cast<double>(levels.activations.size()) + 12;
  SvgWriter svg(width, height, plot.title, plot.description);
  svg.text({20, 34}, plot.title, "title");
  svg.text({20, 57}, plot.description, "soft");
  for (std::size_t row = 0; row < levels.activations.size(); ++row) {
    const std::optional<Frame> range = ranges(study, plot, levels.activations[row]);
    if (!range) continue;
    any = true;
    for (std::size_t column = 0; column < levels.norms.size(); ++column) {
      Frame frame = *range;
      frame.left = 20 + kWidth * static_cast<double>(column) + (plot.labels_left ? 128 : 48);
      frame.right = 20 + kWidth * static_cast<double>(column + 1) - (plot.labels_left ? 58 : 138);
      frame.top = kTop + kHeight * static_cast<double>(row);
      frame.bottom = frame.top + kHeight - 64;
      svg.text({frame.left, frame.top - 8},
               display(levels.activations[row]) + ", " + display(levels.norms[column]), "head");
      draw_panel(svg, study, plot, frame, select_networks(study, [&](const NetworkResult& n) {
                   return n.activation == levels.activations[row] && n.norm == levels.norms[column];
                 }));
    }
  }
  if (!any) return std::nullopt;
  return Figure{plot.file_name, svg.finish()};
}

// A column of moments[0] over the layers, relative to the last layer if asked for.
Curve layer_curve(const NetworkResult& network, double LayerRow::*value, bool relative) {
  Curve curve;
  if (network.moments.empty() || network.moments.front().layers.empty()) return curve;
  const std::vector<LayerRow>& rows = network.moments.front().layers;
  const double top = relative ? rows.back().*value : 1;
  for (const LayerRow& row : rows) {
    curve.x.push_back(row.layer);
    curve.y.push_back(row.*value / top);
  }
  return curve;
}

Curve training_curve(const NetworkResult& network, double CurvePoint::*value) {
  Curve curve;
  for (const CurvePoint& point : network.curve) {
    curve.x.push_back(point.step);
    curve.y.push_back(point.*value);
  }
  return curve;
}

}  // namespace

Levels factorial_levels(const StudyResult& study) {
  Levels levels;
  const auto add = [](std::vector<std::string>& list, const std::string& level) {
    if (std::find(list.begin(), list.end(), level) == list.end()) list.push_back(level);
  };
  for (const NetworkResult& network : study.networks) {
    if (network.yardstick) continue;
    add(levels.activations, network.activation);
    add(levels.inits, network.init);
    add(levels.norms, network.norm);
  }
  return levels;
}

std::vector<Figure> figures(const StudyResult& study) {
  Plot overview{
      .file_name = "overview.svg",
      .title = "How much of the gradient arrives",
      .description =
          "|∂L/∂z| by layer at initialization, relative to the last layer. Dashed: mean-field prediction. "
          "Tinted: beyond the thresholds.",
      .x_title = "layer",
      .bands = true,
      .curve = [](const NetworkResult& n) { return layer_curve(n, &LayerRow::gradient_norm, true); },
      .prediction = [](const NetworkResult& n) { return layer_curve(n, &LayerRow::predicted_norm, true); }};
  Plot weights{
      .file_name = "weight-gradients.svg",
      .title = "Weight gradients",
      .description =
          "|∂L/∂W| by layer at initialization. For ReLU these stay level while the gradient vanishes: they "
          "hold the signal too.",
      .x_title = "layer",
      .curve = [](const NetworkResult& n) { return layer_curve(n, &LayerRow::weight_gradient_norm, false); },
      .prediction = {}};
  Plot accuracy{.file_name = "accuracy.svg",
                .title = "Held-out accuracy",
                .description = "Over the training steps. Dotted: the shallow network. ✕: diverged.",
                .x_title = "step",
                .logarithmic = false,
                .percent = true,
                .labels_left = false,
                .curve = [](const NetworkResult& n) { return training_curve(n, &CurvePoint::test_accuracy); },
                .prediction = {},
                .with_yardstick = true};
  Plot loss = accuracy;
  loss.file_name = "loss.svg";
  loss.title = "Training loss";
  loss.percent = false;
  loss.curve = [](const NetworkResult& n) { return training_curve(n, &CurvePoint::train_loss); };
  std::vector<Figure> all;
  for (const Plot* plot : {&overview, &weights, &accuracy, &loss}) {
    if (std::optional<Figure> figure = small_multiples(study, *plot)) all.push_back(std::move(*figure));
  }
  if (std::optional<Figure> figure = exponent_figure(study)) all.push_back(std::move(*figure));
  if (std::optional<Figure> figure = pair_figure(study)) all.push_back(std::move(*figure));
  return all;
}

}  // namespace gradflow::app
