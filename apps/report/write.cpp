#include "apps/report/write.h"

#include <fmt/format.h>

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
  for (const Figure& figure : figures(study)) {
    write_file_atomically(out_dir / "figures" / figure.file_name, figure.svg);
  }
  write_file_atomically(out_dir / "report.html", report_html(study));
}

StudyResult render_from_json(const std::filesystem::path& json_file, const std::filesystem::path& out_dir) {
  StudyResult study;
  try {
    study = parse_report(read_file(json_file));
  } catch (const UserError& error) {
    throw UserError(fmt::format("{}: {}", json_file.string(), error.what()));
  }
  write_report(study, out_dir);
  return study;
}

}  // namespace gradflow::app
