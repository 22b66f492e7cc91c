#include "apps/report/csv.h"

#include <fmt/format.h>

#include <cmath>
#include <iterator>

#include "apps/report/columns.h"
#include "apps/report/numbers.h"

namespace gradflow::app {
namespace {

std::string field(const std::string& text) {
  if (text.find_first_of(",\"\r\n") == std::string::npos) return text;
  std::string quoted = "\"";
  for (const char c : text) quoted += c == '"' ? "\"\"" : std::string(1, c);
  return quoted + "\"";
}

void add_network(std::string& csv, const NetworkResult& network) {
  const std::string head = fmt::format("{},{},{},{},{}", field(network.id), network.residual ? "on" : "off",
                                       field(network.activation), field(network.init), field(network.norm));
  for (const Moment& moment : network.moments) {
    for (const LayerRow& row : moment.layers) {
      fmt::format_to(std::back_inserter(csv), "{},{},{},{},{}", head, moment.step, moment.seeds, row.layer,
                     field(row.name));
      for (const LayerColumn& column : layer_columns()) {
        const double value = round_digits(row.*column.value);
        csv += ',';
        if (std::isfinite(value)) fmt::format_to(std::back_inserter(csv), "{}", value);
      }
      csv += '\n';
    }
  }
}

}  // namespace

std::string layers_csv(const StudyResult& study) {
  std::string csv = "network,skip,activation,init,norm,step,seeds,layer,name";
  for (const LayerColumn& column : layer_columns())
    fmt::format_to(std::back_inserter(csv), ",{}", column.name);
  csv += '\n';
  for (const NetworkResult& network : study.networks) add_network(csv, network);
  if (study.pair)
    for (const NetworkResult& network : study.pair->networks) add_network(csv, network);
  return csv;
}

}  // namespace gradflow::app
