// The pair of a study (PairResult) as people see it: a section of the page, lines for the terminal, a figure.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "apps/report/svg.h"
#include "apps/report/terminal.h"

namespace gradflow::app {

// "ResNet-56": the network's title without its norm, which both share.
std::string pair_name(const NetworkResult& network);

// The steps whose curves are drawn: at most six, the first ones and the last.
std::vector<int> pair_steps(const PairResult& pair);

// The <section>; empty if the study has no pair. Its charts are drawn by assets/pair.js.
std::string pair_section(const StudyResult& study);

// Ends with a line break; empty if the study has no pair.
std::string pair_text(const StudyResult& study, const TerminalStyle& style);

// first-steps.svg: gradient, effective learning rate and turning angle by layer, at several steps, the plain
// network beside the residual one. Nothing if it was not measured.
std::optional<Figure> pair_figure(const StudyResult& study);

}  // namespace gradflow::app
