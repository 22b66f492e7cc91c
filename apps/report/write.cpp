#include "apps/report/write.h"

#include <fmt/format.h>

#include <algorithm>
#include <system_error>

#include "apps/report/csv.h"
#include "apps/report/html.h"
#include "apps/report/json.h"
#include "apps/report/svg.h"
#include "gradflow/engine/file.h"
#include "gradflow/kernels/error.h"

namespace gradflow::app {

void write_report(const StudyResult& study, const std::filesystem::path& out_dir) {
  ensure_output_directory(out_dir / "figures");
  write_file_atomically(out_dir / "report.json", json_text(to_json(study)));
  write_file_atomically(out_dir / "layers.csv", layers_csv(study));
  write_file_atomically(out_dir / "curves.csv", curves_csv(study));
  const std::vector<Figure> drawn = figures(study);
  for (const Figure& figure : drawn) write_file_atomically(out_dir / "figures" / figure.file_name, figure.svg);
  for (const std::string_view name : kFigureNames) {
    std::error_code ignored;  // a figure that cannot be removed is no reason to withhold the report
    if (std::ranges::find(drawn, name, &Figure::file_name) == drawn.end())
      std::filesystem::remove(out_dir / "figures" / name, ignored);
  }
  write_file_atomically(out_dir / "report.html", report_html(study));
}

StudyResult render_from_json(const std::filesystem::path& json_file, const std::filesystem::path& out_dir) {
  const std::string text = read_file(json_file);
  StudyResult study;
  try {
    study = parse_report(text);
  } catch (const UserError& error) {
    throw UserError(fmt::format("{}: {}", json_file.string(), error.what()));
  }
  write_report(study, out_dir);
  return study;
}

}  // namespace gradflow::app
