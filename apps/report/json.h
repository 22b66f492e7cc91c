// report.json: a StudyResult as text and back. The format is described in docs/REPORT_SCHEMA.md.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "apps/study/results.h"

namespace gradflow::app {

inline constexpr std::string_view kReportSchema = "gradflow-study/1";

// Keys in a fixed order. Numbers are rounded to 6 significant digits; NaN and infinities become null.
// Throws InternalError if the moments of one network list different layers.
nlohmann::ordered_json to_json(const StudyResult& study);

// The reverse; null becomes NaN. Throws UserError, saying where, on another schema or a malformed document.
StudyResult from_json(const nlohmann::ordered_json& document);

// As from_json, from the text of a report.json.
StudyResult parse_report(std::string_view text);

// The document as text for files: objects and lists of objects over several lines, lists of numbers in one
// line.
std::string json_text(const nlohmann::ordered_json& document);

}  // namespace gradflow::app
