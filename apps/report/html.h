// report.html: one file with everything in it (style, scripts, Chart.js, the study), which opens from a
// folder, a mail or a web server and asks the network for nothing.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "apps/study/results.h"

namespace gradflow::app {

std::string report_html(const StudyResult& study);

// Text for element content and quoted attributes: & < > " ' become entities.
std::string html_escape(std::string_view text);

// JSON for the inside of a <script>: every < becomes \u003c, so that neither </script nor <!-- can occur.
// Valid JSON has < only within strings, where the escape means the same.
std::string json_for_script(std::string json);

// Replaces each {{name}} in the template. Throws InternalError if the template names what is not given; what
// is put in is not searched again.
std::string fill_template(std::string_view text,
                          const std::vector<std::pair<std::string_view, std::string>>& values);

}  // namespace gradflow::app
