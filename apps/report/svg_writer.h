// A few shapes as SVG text. Coordinates are user units, y down; text is escaped here.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace gradflow::app {

struct Point {
  double x = 0, y = 0;
};

class SvgWriter {
 public:
  // title and description are read out by screen readers.
  SvgWriter(double width, double height, std::string_view title, std::string_view description);

  // `css` is the class list; the classes are those of the style sheet in svg_writer.cpp.
  void rect(double x, double y, double width, double height, std::string_view css);
  void line(Point from, Point to, std::string_view css);
  // One stroke per run of points; a gap is where `points` holds a NaN.
  void path(const std::vector<Point>& points, std::string_view css);
  void circle(Point center, double radius, std::string_view css);
  void text(Point at, std::string_view content, std::string_view css);
  // Path data as it is, in a coordinate system moved to `origin` and stretched.
  void cells(Point origin, double scale_x, double scale_y, const std::string& data, std::string_view css);

  // The whole document, with the XML declaration.
  std::string finish();

 private:
  std::string body_;
};

// Evenly spread numbers of the form 1, 2 or 5 times a power of ten within [low, high], at most `most` of
// them.
std::vector<double> nice_ticks(double low, double high, int most);

// Moves positions apart until neighbours keep `gap`, as little as possible, within [low, high] where they
// fit.
std::vector<double> spread_labels(const std::vector<double>& wanted, double gap, double low, double high);

}  // namespace gradflow::app
