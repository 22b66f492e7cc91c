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

void add_number(std::string& csv, double value) {
  const double rounded = round_digits(value);
  csv += ',';
  if (std::isfinite(rounded)) fmt::format_to(std::back_inserter(csv), "{}", rounded);
}

void add_network(std::string& csv, const NetworkResult& network) {
  const std::string head = fmt::format("{},{},{},{},{}", field(network.id), network.residual ? "on" : "off",
                                       field(network.activation), field(network.init), field(network.norm));
  for (const Moment& moment : network.moments) {
    for (const LayerRow& row : moment.layers) {
      fmt::format_to(std::back_inserter(csv), "{},{},{},{},{}", head, moment.step, moment.seeds, row.layer,
                     field(row.name));
      for (const LayerColumn& column : layer_columns()) add_number(csv, row.*column.value);
      csv += row.exponent_shares.empty() ? "," : fmt::format(",{}", row.first_exponent);
      fmt::format_to(std::back_inserter(csv), ",{}\n", fmt::join(shares_ppm(row.exponent_shares), " "));
    }
  }
}

template <class F>
void for_each_network(const StudyResult& study, const F& f) {
  for (const NetworkResult& network : study.networks) f(network);
  if (study.pair)
    for (const NetworkResult& network : study.pair->networks) f(network);
}

}  // namespace

std::string layers_csv(const StudyResult& study) {
  std::string csv = "network,skip,activation,init,norm,step,seeds,layer,name";
  for (const LayerColumn& column : layer_columns())
    fmt::format_to(std::back_inserter(csv), ",{}", column.name);
  csv += ",exponents_first,exponents_shares_ppm\n";
  for_each_network(study, [&](const NetworkResult& network) { add_network(csv, network); });
  return csv;
}

std::string curves_csv(const StudyResult& study) {
  std::string csv = "network,step,train_loss,test_loss,test_accuracy\n";
  for_each_network(study, [&](const NetworkResult& network) {
    for (const CurvePoint& point : network.curve) {
      fmt::format_to(std::back_inserter(csv), "{},{}", field(network.id), point.step);
      for (const double value : {point.train_loss, point.test_loss, point.test_accuracy}) add_number(csv, value);
      csv += '\n';
    }
  });
  return csv;
}

}  // namespace gradflow::app
