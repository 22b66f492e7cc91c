#include "apps/report/svg_writer.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <iterator>
#include <numeric>

#include "apps/report/html.h"

namespace gradflow::app {
namespace {

// Okabe and Ito's colors, somewhat deeper on light ground. Warm: plain. Cool: residual.
constexpr std::string_view kStyle = R"(
.page{fill:#fff}.panel{fill:#fff;stroke:#d0d3d6}.grid{stroke:#e6e8ea}.zero{stroke:#8a929b}
text{font:13px system-ui,-apple-system,"Segoe UI",Roboto,"Noto Sans","DejaVu Sans",sans-serif;fill:#1c2127}
.title{font-size:19px;font-weight:700}.head{font-weight:650}.soft,.tick{fill:#5a6470}.tick{font-size:12px}
.end{text-anchor:end}.middle{text-anchor:middle}.label{font-size:12px;font-weight:600;text-anchor:end}
.curve{fill:none;stroke-width:2.4;stroke-linejoin:round}.thin{stroke-width:1.5}
.prediction{fill:none;stroke:#1c2127;stroke-width:1;stroke-dasharray:4 4;opacity:.65}
.leader{stroke:#9aa2aa;stroke-width:.8}.dotted{fill:none;stroke:#5a6470;stroke-width:1.4;stroke-dasharray:2 3}
.vanish-band{fill:#0072b2;opacity:.07}.explode-band{fill:#d55e00;opacity:.07}.dot{stroke-width:1.8}.hollow{fill:#fff}
.halo{paint-order:stroke;stroke:#fff;stroke-width:3px}.limit{stroke:#1c2127;stroke-width:1.2;stroke-dasharray:5 4;fill:none}
.plain-xavier{stroke:#d55e00}.plain-he{stroke:#b27700}.residual-xavier{stroke:#0072b2}.residual-he{stroke:#008f68}
text.plain-xavier,circle.full.plain-xavier{fill:#d55e00}text.plain-he,circle.full.plain-he{fill:#b27700}
text.residual-xavier,circle.full.residual-xavier{fill:#0072b2}text.residual-he,circle.full.residual-he{fill:#008f68}
text.plain-xavier,text.plain-he,text.residual-xavier,text.residual-he{stroke:none}
.t0{stroke:#1c2127}.t1{stroke:#4a3a7a}.t2{stroke:#8a3f91}.t3{stroke:#c4496b}.t4{stroke:#d2621a}.t5{stroke:#c19300}
text.t0{fill:#1c2127}text.t1{fill:#4a3a7a}text.t2{fill:#8a3f91}text.t3{fill:#c4496b}text.t4{fill:#d2621a}text.t5{fill:#a87f00}
text.t0,text.t1,text.t2,text.t3,text.t4,text.t5{stroke:none}
.s0{fill:#e9e3b4}.s1{fill:#cbbb72}.s2{fill:#948e77}.s3{fill:#5c6871}.s4{fill:#2b446e}.s5{fill:#00224e}
@media (prefers-color-scheme:dark){
.page,.panel,.hollow{fill:#16191c}.panel{stroke:#3a4147}.grid{stroke:#2b3136}text{fill:#e8eaec}.soft,.tick{fill:#a3acb5}
.prediction,.limit{stroke:#e8eaec}.halo{stroke:#16191c}.vanish-band,.explode-band{opacity:.16}
.plain-xavier{stroke:#f07a1c}.plain-he{stroke:#f0b83c}.residual-xavier{stroke:#4da8e6}.residual-he{stroke:#2fc79a}
text.plain-xavier,circle.full.plain-xavier{fill:#f07a1c}text.plain-he,circle.full.plain-he{fill:#f0b83c}
text.residual-xavier,circle.full.residual-xavier{fill:#4da8e6}text.residual-he,circle.full.residual-he{fill:#2fc79a}
.t0{stroke:#f4f5f6}.t1{stroke:#b7a6f0}.t2{stroke:#d58be0}.t3{stroke:#f0839b}.t4{stroke:#f5954a}.t5{stroke:#f0c43c}
text.t0{fill:#f4f5f6}text.t1{fill:#b7a6f0}text.t2{fill:#d58be0}text.t3{fill:#f0839b}text.t4{fill:#f5954a}text.t5{fill:#f0c43c}
.s0{fill:#1d3a66}.s1{fill:#3f557a}.s2{fill:#6b7178}.s3{fill:#948e77}.s4{fill:#cbb866}.s5{fill:#fee838}}
)";

}  // namespace

SvgWriter::SvgWriter(double width, double height, std::string_view title, std::string_view description) {
  body_ = fmt::format(
      "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 "
      "{0} {1}\" width=\"{0}\" height=\"{1}\" role=\"img\" aria-labelledby=\"title description\">\n<title "
      "id=\"title\">{2}</title>\n<desc id=\"description\">{3}</desc>\n<style>{4}</style>\n",
      width, height, html_escape(title), html_escape(description), kStyle);
  rect(0, 0, width, height, "page");
}

void SvgWriter::rect(double x, double y, double width, double height, std::string_view css) {
  fmt::format_to(std::back_inserter(body_),
                 "<rect class=\"{}\" x=\"{:.1f}\" y=\"{:.1f}\" width=\"{:.1f}\" height=\"{:.1f}\"/>\n", css,
                 x, y, std::max(0.0, width), std::max(0.0, height));
}

void SvgWriter::line(Point from, Point to, std::string_view css) {
  fmt::format_to(std::back_inserter(body_),
                 "<line class=\"{}\" x1=\"{:.1f}\" y1=\"{:.1f}\" x2=\"{:.1f}\" y2=\"{:.1f}\"/>\n", css,
                 from.x, from.y, to.x, to.y);
}

void SvgWriter::path(const std::vector<Point>& points, std::string_view css) {
  std::string data;
  bool pen = false;
  for (const Point& point : points) {
    if (!std::isfinite(point.x) || !std::isfinite(point.y)) {
      pen = false;
      continue;
    }
    fmt::format_to(std::back_inserter(data), "{}{:.1f} {:.1f}", pen ? 'L' : 'M', point.x, point.y);
    pen = true;
  }
  if (!data.empty()) fmt::format_to(std::back_inserter(body_), "<path class=\"{}\" d=\"{}\"/>\n", css, data);
}

void SvgWriter::circle(Point center, double radius, std::string_view css) {
  fmt::format_to(std::back_inserter(body_),
                 "<circle class=\"{}\" cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"{:.1f}\"/>\n", css, center.x, center.y,
                 radius);
}

void SvgWriter::text(Point at, std::string_view content, std::string_view css) {
  fmt::format_to(std::back_inserter(body_), "<text class=\"{}\" x=\"{:.1f}\" y=\"{:.1f}\">{}</text>\n", css,
                 at.x, at.y, html_escape(content));
}

void SvgWriter::cells(Point origin, double scale_x, double scale_y, const std::string& data,
                      std::string_view css) {
  if (data.empty()) return;
  fmt::format_to(
      std::back_inserter(body_),
      "<path class=\"{}\" transform=\"translate({:.2f} {:.2f}) scale({:.4f} {:.4f})\" d=\"{}\"/>\n", css,
      origin.x, origin.y, scale_x, scale_y, data);
}

std::string SvgWriter::finish() { return body_ + "</svg>\n"; }

std::vector<double> nice_ticks(double low, double high, int most) {
  if (!(high > low) || most < 1) return {low};
  double step = std::pow(10.0, std::floor(std::log10((high - low) / most)));
  for (const double factor : {1.0, 2.0, 5.0, 10.0}) {
    if ((high - low) / (step * factor) <= most) {
      step *= factor;
      break;
    }
  }
  std::vector<double> ticks;
  for (double tick = std::ceil(low / step) * step; tick <= high + 1e-9 * step; tick += step) {
    ticks.push_back(std::abs(tick) < 1e-9 * step ? 0 : tick);
  }
  return ticks;
}

std::vector<double> spread_labels(const std::vector<double>& wanted, double gap, double low, double high) {
  struct Group {
    double center = 0, sum = 0;
    std::vector<std::size_t> members;
  };
  std::vector<std::size_t> order(wanted.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return wanted[a] < wanted[b]; });
  std::vector<Group> groups;
  for (const std::size_t index : order) {
    groups.push_back({wanted[index], wanted[index], {index}});
    while (groups.size() > 1) {
      Group& below = groups[groups.size() - 2];
      const Group& last = groups.back();
      const double need = gap * static_cast<double>(below.members.size() + last.members.size()) / 2;
      if (last.center - below.center >= need) break;
      below.sum += last.sum;
      below.members.insert(below.members.end(), last.members.begin(), last.members.end());
      const double half = gap * static_cast<double>(below.members.size() - 1) / 2;
      below.center = below.sum / static_cast<double>(below.members.size());
      below.center = std::max(std::min(below.center, high - half), low + half);
      groups.pop_back();
    }
  }
  std::vector<double> placed(wanted.size());
  for (const Group& group : groups) {
    for (std::size_t k = 0; k < group.members.size(); ++k) {
      placed[group.members[k]] =
          group.center + gap * (static_cast<double>(k) - static_cast<double>(group.members.size() - 1) / 2);
    }
  }
  return placed;
}

}  // namespace gradflow::app
