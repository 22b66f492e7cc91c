// All files of a report.
#pragma once

#include <filesystem>

#include "apps/study/results.h"

namespace gradflow::app {

// Writes report.html, report.json, layers.csv, curves.csv and figures/*.svg into out_dir, which is created if it is not
// there. Each file is whole or not there; report.html comes last, so that it never speaks of files that are
// missing. A figure of an earlier report for which this study has no data is removed: it would show another
// study's numbers. Throws UserError if something cannot be written.
void write_report(const StudyResult& study, const std::filesystem::path& out_dir);

// The same from a report.json that was written before, for `gradflow report --from FILE --out DIR`.
// Throws UserError, naming the file, if it is not one.
StudyResult render_from_json(const std::filesystem::path& json_file, const std::filesystem::path& out_dir);

}  // namespace gradflow::app
