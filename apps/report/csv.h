// layers.csv and curves.csv: what was measured in every layer and along the training, for spreadsheets and notebooks.
#pragma once

#include <string>

#include "apps/study/results.h"

namespace gradflow::app {

// A header line and one line per network (the pair's last), step and layer. Numbers as in report.json; what was not measured is
// an empty field. RFC 4180: fields with a comma, a quote or a line break are quoted; lines end in \n.
std::string layers_csv(const StudyResult& study);
// A header line and one line per network, in the same order, and point of its training curve.
std::string curves_csv(const StudyResult& study);

}  // namespace gradflow::app
