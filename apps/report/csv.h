// layers.csv: every scalar measured in every layer, for spreadsheets and notebooks.
#pragma once

#include <string>

#include "apps/study/results.h"

namespace gradflow::app {

// A header line and one line per network (the pair's last), step and layer. Numbers as in report.json; what was not measured is
// an empty field. RFC 4180: fields with a comma, a quote or a line break are quoted; lines end in \n.
std::string layers_csv(const StudyResult& study);

}  // namespace gradflow::app
