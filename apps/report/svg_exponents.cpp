#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <climits>
#include <cmath>
#include <iterator>
#include <utility>

#include "apps/report/numbers.h"
#include "apps/report/study_view.h"
#include "apps/report/svg_parts.h"
#include "apps/report/svg_writer.h"

namespace gradflow::app {
namespace {

// Where rounding to nearest gives zero: half of the smallest subnormal.
constexpr std::array<std::pair<const char*, int>, 3> kLimits = {
    {{"fp16", -25}, {"bf16", -134}, {"fp32", -150}}};
constexpr int kShades = 6;

// 0 for shares up to 10⁻⁵, kShades - 1 for more than 10 %.
int shade(double share) {
  return std::clamp(static_cast<int>(std::ceil(std::log10(share))) + 5, 0, kShades - 1);
}

struct Range {
  int low = INT_MAX, high = INT_MIN;
};

Range exponent_range(const StudyResult& study) {
  Range range;
  for (const NetworkResult* network :
       select_networks(study, [](const NetworkResult& n) { return !n.moments.empty(); })) {
    for (const LayerRow& row : network->moments.front().layers) {
      for (std::size_t k = 0; k < row.exponent_shares.size(); ++k) {
        if (!(row.exponent_shares[k] > 0)) continue;
        range.low = std::min(range.low, row.first_exponent + static_cast<int>(k));
        range.high = std::max(range.high, row.first_exponent + static_cast<int>(k));
      }
    }
  }
  return range;
}

void draw_map(SvgWriter& svg, const NetworkResult& network, Range range, double x, double y, double width,
              double height, bool first_column) {
  const std::vector<LayerRow>& rows = network.moments.front().layers;
  svg.rect(x, y, width, height, "panel");
  const double cell_width = width / static_cast<double>(std::max<std::size_t>(1, rows.size()));
  const double cell_height = height / (range.high + 1 - range.low);
  const auto page_y = [&](int exponent) { return y + cell_height * (range.high + 1 - exponent); };
  // One path a shade: cells are unit squares in a stretched coordinate system.
  std::array<std::string, kShades> paths;
  for (std::size_t i = 0; i < rows.size(); ++i) {
    for (std::size_t k = 0; k < rows[i].exponent_shares.size(); ++k) {
      const double share = rows[i].exponent_shares[k];
      if (!(share > 0)) continue;
      const int from_top = range.high - (rows[i].first_exponent + static_cast<int>(k));
      fmt::format_to(std::back_inserter(paths[shade(share)]), "M{} {}h1v1h-1z", i, from_top);
    }
  }
  for (int s = 0; s < kShades; ++s)
    svg.cells({x, y}, cell_width, cell_height, paths[s], fmt::format("s{}", s));
  for (const auto& [name, exponent] : kLimits) {
    if (exponent < range.low || exponent > range.high) continue;
    svg.line({x, page_y(exponent)}, {x + width, page_y(exponent)}, "limit");
    svg.text({x + width - 4, page_y(exponent) + 13}, fmt::format("{}: zero below", name), "tick end halo");
  }
  if (first_column) {
    for (const double tick : nice_ticks(range.low, range.high, 6)) {
      std::string text = power_of_ten(static_cast<int>(tick));
      text = tick == 0 ? "1" : "2" + text.substr(2);
      svg.text({x - 6, page_y(static_cast<int>(tick)) + 4}, text, "tick end");
    }
  }
}

}  // namespace

std::optional<Figure> exponent_figure(const StudyResult& study) {
  Range range = exponent_range(study);
  if (range.low > range.high) return std::nullopt;
  range.low = std::min(range.low, -27);
  const Levels levels = factorial_levels(study);
  constexpr double kWidth = 250, kHeight = 190, kLeft = 66, kTop = 112;
  std::vector<std::pair<bool, std::string>> columns;
  for (const bool residual : {false, true}) {
    for (const std::string& norm : levels.norms) columns.emplace_back(residual, norm);
  }
  const std::size_t rows = levels.activations.size() * levels.inits.size();
  const std::string title = "Exponents of the gradient’s elements";
  const std::string description =
      "Share of the elements of ∂L/∂z by power of two (upward) and layer (left to right, 1 to L), at "
      "initialization.";
  SvgWriter svg(kLeft + kWidth * static_cast<double>(columns.size()) + 10,
                kTop + kHeight * static_cast<double>(rows) + 10, title, description);
  svg.text({20, 34}, title, "title");
  svg.text({20, 57}, description, "soft");
  svg.text({20, 74}, "Strongest shade: more than 10 %; each weaker one a tenth of it.", "soft");
  std::size_t row = 0;
  for (const std::string& activation : levels.activations) {
    for (const std::string& init : levels.inits) {
      for (std::size_t c = 0; c < columns.size(); ++c) {
        const auto& [residual, norm] = columns[c];
        const NetworkResult* network = find_network(study, residual, activation, init, norm);
        if (network == nullptr || network->moments.empty()) continue;
        const double x = kLeft + kWidth * static_cast<double>(c);
        const double y = kTop + kHeight * static_cast<double>(row);
        svg.text({x, y - 6}, fmt::format("{}, {}", residual ? "residual" : "plain", factors_title(*network)),
                 "tick");
        draw_map(svg, *network, range, x, y, kWidth - 16, kHeight - 34, c == 0);
      }
      ++row;
    }
  }
  return Figure{"exponents.svg", svg.finish()};
}

}  // namespace gradflow::app
