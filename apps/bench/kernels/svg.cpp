// The kernels' shares of the memory's bandwidth as bars, in one file that needs nothing else.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <iterator>

#include "apps/bench/kernels/bench_kernels.h"
#include "apps/report/html.h"
#include "gradflow/engine/version.h"

namespace gradflow::app {
namespace {

// Bars in one hue by pass, launch-bound ones hollow. Colors of Okabe and Ito.
constexpr const char* kStyle = R"(
.page{fill:#fff}.grid{stroke:#e6e8ea}.one{stroke:#1c2127;stroke-dasharray:5 4}
text{font:12px system-ui,-apple-system,"Segoe UI",Roboto,"Noto Sans","DejaVu Sans",sans-serif;fill:#1c2127}
.title{font-size:18px;font-weight:700}.head{font-size:14px;font-weight:650}.soft{fill:#5a6470}.end{text-anchor:end}
.middle{text-anchor:middle}.forward{fill:#0072b2}.backward{fill:#d55e00}.update{fill:#008f68}.probe{fill:#b27700}
.input,.memory{fill:#7d8790}.hollow{fill-opacity:.25}
@media (prefers-color-scheme:dark){.page{fill:#16191c}.grid{stroke:#2b3136}text{fill:#e8eaec}.soft{fill:#a3acb5}
.one{stroke:#e8eaec}.forward{fill:#4da8e6}.backward{fill:#f07a1c}.update{fill:#2fc79a}.probe{fill:#f0b83c}}
)";

constexpr double kWidth = 1000, kLeft = 330, kRight = 930, kTop = 96, kRow = 18, kHead = 34;
constexpr const char* kPasses[] = {"forward", "backward", "update", "probe", "input", "memory"};

class Picture {
 public:
  explicit Picture(const KernelBenchResult& r) : r_(r) {
    double largest = 1;
    for (const KernelRow& row : r.rows) largest = std::max(largest, row.share);
    full_ = std::ceil(std::min(largest, 2.0) * 4) / 4;
    std::size_t size = 0;
    for (const KernelRow& row : r.rows) {
      if (row.size != size) height_ += kHead;
      size = row.size;
      height_ += kRow;
    }
    height_ += kTop + 30;
  }

  std::string draw() {
    out_ = fmt::format(
        R"(<?xml version="1.0" encoding="UTF-8"?>
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {0} {1}" width="{0}" height="{1}" role="img" aria-labelledby="title description">
<title id="title">Share of the memory bandwidth, by kernel</title>
<desc id="description">Bars for {2} measurements on {3}; the dashed line is a {4}, {5:.1f} GB/s.</desc>
<style>{6}</style>
<rect class="page" width="{0}" height="{1}"/>
)",
        kWidth, height_, r_.rows.size(), html_escape(r_.device.model), r_.yardstick.reference,
        1e-9 * r_.yardstick.reference_rate, kStyle);
    grid();
    text(20, 34, "title", fmt::format("Share of the bandwidth of a {}, cold cache", r_.yardstick.reference));
    text(20, 56, "soft",
         fmt::format("{} {}; {} {:.1f} GB/s; gradflow {} ({})", r_.device.name, r_.device.model,
                     r_.yardstick.reference, 1e-9 * r_.yardstick.reference_rate, version(), git_revision()));
    double x = 20;
    for (const char* pass : kPasses) {
      if (std::ranges::none_of(r_.rows, [&](const KernelRow& row) { return row.pass == pass; })) continue;
      rect(x, 68, 12, 12, pass);
      text(x + 17, 78, "", pass);
      x += 90;
    }
    rect(x, 68, 12, 12, "memory hollow");
    text(x + 17, 78, "", "pale: launch-bound");
    double y = kTop;
    std::size_t size = 0;
    for (const KernelRow& row : r_.rows) {
      if (row.size != size) {
        y += kHead;
        text(20, y - 12, "head", size_text(row.size) + " elements");
      }
      size = row.size;
      bar(row, y);
      y += kRow;
    }
    return out_ + "</svg>\n";
  }

 private:
  const KernelBenchResult& r_;
  double full_ = 1, height_ = 0;
  std::string out_;

  double position(double share) const { return kLeft + (kRight - kLeft) * std::min(share, full_) / full_; }
  void rect(double x, double y, double w, double h, std::string_view css) {
    fmt::format_to(std::back_inserter(out_),
                   "<rect class=\"{}\" x=\"{:.1f}\" y=\"{:.1f}\" width=\"{:.1f}\" height=\"{:.1f}\"/>\n", css,
                   x, y, w, h);
  }
  void text(double x, double y, std::string_view css, std::string_view content) {
    fmt::format_to(std::back_inserter(out_), "<text class=\"{}\" x=\"{:.1f}\" y=\"{:.1f}\">{}</text>\n", css,
                   x, y, html_escape(content));
  }
  void grid() {
    for (double tick = 0; tick <= full_ + 1e-9; tick += 0.25) {
      const double at = position(tick);
      out_ += fmt::format("<line class=\"{}\" x1=\"{:.1f}\" x2=\"{:.1f}\" y1=\"{:.1f}\" y2=\"{:.1f}\"/>\n",
                          std::fabs(tick - 1) < 1e-9 ? "one" : "grid", at, at, kTop + 8, height_ - 24);
      text(at, height_ - 8, "middle soft", fmt::format("{:.0f} %", 100 * tick));
    }
  }
  void bar(const KernelRow& row, double y) {
    text(kLeft - 8, y + 12, "end", row.name);
    rect(kLeft, y + 2, position(row.share) - kLeft, kRow - 5, row.pass + (row.launch_bound ? " hollow" : ""));
    text(position(row.share) + 5, y + 12, "soft", fmt::format("{:.0f}", 100 * row.share));
  }
};

}  // namespace

std::string kernels_svg(const KernelBenchResult& r) { return Picture(r).draw(); }

}  // namespace gradflow::app
