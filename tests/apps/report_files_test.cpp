// report.json and layers.csv: nothing is lost on the way through the file, both say the same, bad files are
// refused.
#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <sstream>
#include <string>
#include <vector>

#include "apps/report/columns.h"
#include "apps/report/csv.h"
#include "apps/report/json.h"
#include "apps/report/numbers.h"
#include "apps/sample_study.h"
#include "gradflow/kernels/error.h"

namespace gradflow::app {
namespace {

// Equal to 6 significant digits: half a unit of the sixth is at most 5e-6 of the value.
bool same(double a, double b) {
  if (!std::isfinite(a) || !std::isfinite(b)) return std::isfinite(a) == std::isfinite(b);
  return std::abs(a - b) <= 5.001e-6 * std::abs(a);
}

std::vector<std::string> split(const std::string& line) {
  std::vector<std::string> fields;
  std::istringstream in(line);
  for (std::string field; std::getline(in, field, ',');) fields.push_back(field);
  if (!line.empty() && line.back() == ',') fields.emplace_back();
  return fields;
}

std::string error_of(const std::string& text) {
  try {
    parse_report(text);
  } catch (const UserError& error) {
    return error.what();
  }
  return "";
}

std::vector<NetworkResult> with_pair(const StudyResult& study) {
  std::vector<NetworkResult> all = study.networks;
  all.insert(all.end(), study.pair->networks.begin(), study.pair->networks.end());
  return all;
}

TEST(ReportJson, KeepsEverythingThroughTheFile) {
  StudyResult before = sample_study();
  before.held_out = 2000;
  before.held_out_last = 10000;
  const StudyResult after = parse_report(json_text(to_json(before)));
  EXPECT_EQ(after.title, before.title);
  EXPECT_EQ(after.command, before.command);
  EXPECT_EQ(after.seed, before.seed);
  EXPECT_EQ(after.held_out, before.held_out);
  EXPECT_EQ(after.held_out_last, before.held_out_last);
  EXPECT_EQ(after.thresholds.explode_above, before.thresholds.explode_above);
  ASSERT_EQ(after.networks.size(), before.networks.size());
  ASSERT_TRUE(after.pair.has_value());
  EXPECT_EQ(after.pair->reduction, before.pair->reduction);
  EXPECT_EQ(after.pair->learning_rate, before.pair->learning_rate);
  EXPECT_EQ(after.pair->held_out, before.pair->held_out);
  const std::vector<NetworkResult> all_before = with_pair(before), all_after = with_pair(after);
  ASSERT_EQ(all_after.size(), all_before.size());
  for (std::size_t n = 0; n < all_before.size(); ++n) {
    const NetworkResult& a = all_before[n];
    const NetworkResult& b = all_after[n];
    EXPECT_EQ(b.id, a.id);
    EXPECT_EQ(b.diverged_at, a.diverged_at);
    EXPECT_EQ(b.at_init.kind, a.at_init.kind);
    EXPECT_EQ(b.trained.evidence, a.trained.evidence);
    EXPECT_TRUE(same(a.at_init.end_to_end, b.at_init.end_to_end)) << a.id;
    EXPECT_TRUE(same(a.final_accuracy, b.final_accuracy)) << a.id;
    ASSERT_EQ(b.curve.size(), a.curve.size());
    for (std::size_t i = 0; i < a.curve.size(); ++i)
      EXPECT_TRUE(same(a.curve[i].train_loss, b.curve[i].train_loss));
    ASSERT_EQ(b.moments.size(), a.moments.size());
    for (std::size_t m = 0; m < a.moments.size(); ++m) {
      EXPECT_EQ(b.moments[m].step, a.moments[m].step);
      ASSERT_EQ(b.moments[m].layers.size(), a.moments[m].layers.size());
      for (std::size_t l = 0; l < a.moments[m].layers.size(); ++l) {
        const LayerRow& x = a.moments[m].layers[l];
        const LayerRow& y = b.moments[m].layers[l];
        EXPECT_EQ(y.name, x.name);
        for (const LayerColumn& column : layer_columns()) {
          EXPECT_TRUE(same(x.*column.value, y.*column.value))
              << a.id << " " << column.name << " layer " << x.layer;
        }
        ASSERT_EQ(y.exponent_shares.size(), x.exponent_shares.size());
        for (std::size_t k = 0; k < x.exponent_shares.size(); ++k) {
          // Shares are stored in whole parts per million.
          EXPECT_LE(std::abs(x.exponent_shares[k] - y.exponent_shares[k]), 0.5000001e-6);
        }
      }
    }
  }
}

TEST(ReportJson, SecondWritingIsIdentical) {
  const std::string once = json_text(to_json(sample_study()));
  EXPECT_EQ(json_text(to_json(parse_report(once))), once);
}

TEST(ReportJson, ReadsReportsOfBeforeThePair) {
  auto json = to_json(sample_study());
  json["settings"].erase("held_out");
  json["settings"].erase("held_out_last");
  EXPECT_EQ(json["pair"]["claims"][0]["answer"], "holds");
  json.erase("pair");
  EXPECT_FALSE(parse_report(json.dump()).pair.has_value());
  json["pair"] = nullptr;
  EXPECT_FALSE(parse_report(json.dump()).pair.has_value());
}

TEST(ReportJson, WhatIsNotANumberBecomesNull) {
  StudyResult study = sample_study();
  study.networks.resize(1);
  study.networks[0].moments[0].layers[0].gradient_norm = std::numeric_limits<double>::infinity();
  study.networks[0].final_loss = kMissing;
  const auto json = to_json(study);
  EXPECT_TRUE(json["networks"][0]["moments"][0]["layers"]["gradient_norm"][0].is_null());
  EXPECT_TRUE(json["networks"][0]["final_loss"].is_null());
  EXPECT_TRUE(std::isnan(from_json(json).networks[0].final_loss));
}

TEST(ReportJson, LeavesOutColumnsThatWereNotMeasured) {
  const auto json = to_json(sample_study());
  const auto& layers = json["networks"][1]["moments"][0]["layers"];  // a plain network
  EXPECT_TRUE(layers.contains("gradient_norm"));
  EXPECT_FALSE(layers.contains("skip_norm"));
}

TEST(ReportJson, RefusesWhatIsNotAReport) {
  EXPECT_TRUE(error_of("{").starts_with("not a gradflow report: parse error at line 1")) << error_of("{");
  EXPECT_NE(error_of("[1, 2]").find("not a gradflow report"), std::string::npos);
  EXPECT_NE(error_of(R"({"schema": "gradflow-study/9"})").find("gradflow-study/1"), std::string::npos);
  auto json = to_json(sample_study());
  json["networks"][1]["moments"][0]["layers"]["z_rms"].erase(0);
  EXPECT_NE(error_of(json.dump()).find("network 1: moment 0: column 'z_rms' has 49 entries for 50 layers"), std::string::npos) << error_of(json.dump());
  json = to_json(sample_study());
  json["pair"]["networks"][1]["trained"]["kind"] = 3;
  EXPECT_EQ(error_of(json.dump()), "not a gradflow report: network of the pair 1: type must be string, but is number");
  json = to_json(sample_study());
  json["networks"][1]["at_init"]["kind"] = "fine";
  EXPECT_NE(error_of(json.dump()).find("fine"), std::string::npos);
  json = to_json(sample_study());
  json["settings"].erase("seed");
  EXPECT_NE(error_of(json.dump()).find("seed"), std::string::npos);
}

TEST(ReportJson, RefusesToWriteMomentsOfDifferentLayers) {
  StudyResult study = sample_study();
  study.networks[1].moments[1].layers.pop_back();
  EXPECT_THROW(to_json(study), InternalError);
}

TEST(LayersCsv, HoldsTheSameNumbersAsTheJson) {
  const StudyResult study = sample_study();
  const auto json = to_json(study);
  std::istringstream csv(layers_csv(study));
  std::string line;
  ASSERT_TRUE(std::getline(csv, line));
  const std::vector<std::string> header = split(line);
  std::map<std::string, std::size_t> at;
  for (std::size_t i = 0; i < header.size(); ++i) at[header[i]] = i;
  int histograms = 0;
  ASSERT_EQ(header.size(), 9 + layer_columns().size() + 2);
  auto networks = json["networks"];
  for (const auto& network : json["pair"]["networks"]) networks.push_back(network);
  for (const auto& network : networks) {
    for (const auto& moment : network["moments"]) {
      for (std::size_t l = 0; l < network["layers"].size(); ++l) {
        ASSERT_TRUE(std::getline(csv, line));
        const std::vector<std::string> fields = split(line);
        ASSERT_EQ(fields.size(), header.size()) << line;
        EXPECT_EQ(fields[at["network"]], network["id"]);
        EXPECT_EQ(std::stoi(fields[at["step"]]), moment["step"]);
        EXPECT_EQ(std::stoi(fields[at["layer"]]), network["layers"][l]["layer"]);
        for (const LayerColumn& column : layer_columns()) {
          const std::string name(column.name);
          const auto& columns = moment["layers"];
          const bool missing = !columns.contains(name) || columns[name][l].is_null();
          EXPECT_EQ(fields[at[name]].empty(), missing) << name;
          // The text of both is the shortest that gives the rounded number, so the numbers are equal to the
          // last bit.
          if (!missing) {
            EXPECT_EQ(std::strtod(fields[at[name]].c_str(), nullptr), columns[name][l].get<double>()) << name;
          }
        }
        std::istringstream shares(fields[at["exponents_shares_ppm"]]);
        const auto& exponents = moment["layers"].value("exponents", nlohmann::json(nullptr));
        const bool any = !exponents.is_null() && !exponents["shares_ppm"][l].empty();
        EXPECT_EQ(fields[at["exponents_first"]], any ? exponents["first"][l].dump() : "");
        if (any)
          for (const auto& share : exponents["shares_ppm"][l]) {
            std::int64_t value = -1;
            EXPECT_TRUE(shares >> value);
            EXPECT_EQ(share, value);
          }
        EXPECT_TRUE((shares >> std::ws).eof());
        histograms += any;
      }
    }
  }
  EXPECT_FALSE(std::getline(csv, line));
  EXPECT_GT(histograms, 0);
}

TEST(CurvesCsv, HoldsTheSameNumbersAsTheJson) {
  const auto json = to_json(sample_study());
  std::istringstream csv(curves_csv(sample_study()));
  std::string line;
  ASSERT_TRUE(std::getline(csv, line));
  EXPECT_EQ(line, "network,step,train_loss,test_loss,test_accuracy");
  auto networks = json["networks"];
  for (const auto& network : json["pair"]["networks"]) networks.push_back(network);
  int points = 0;
  for (const auto& network : networks)
    for (std::size_t i = 0; i < network["curve"]["step"].size(); ++i, ++points) {
      ASSERT_TRUE(std::getline(csv, line));
      const std::vector<std::string> fields = split(line);
      ASSERT_EQ(fields.size(), 5u) << line;
      EXPECT_EQ(fields[0], network["id"]);
      EXPECT_EQ(fields[1], network["curve"]["step"][i].dump());
      std::size_t f = 2;
      for (const char* key : {"train_loss", "test_loss", "test_accuracy"}) {
        const auto& value = network["curve"][key][i];
        EXPECT_EQ(fields[f].empty(), value.is_null());
        if (!value.is_null()) {
          EXPECT_EQ(std::stod(fields[f]), value.get<double>());
        }
        ++f;
      }
    }
  EXPECT_GT(points, 0);
  EXPECT_FALSE(std::getline(csv, line));
}

TEST(LayersCsv, QuotesFieldsThatNeedIt) {
  StudyResult study = sample_study();
  study.networks.resize(1);
  study.networks[0].moments[0].layers[0].name = "a \"b\", c";
  EXPECT_NE(layers_csv(study).find("\"a \"\"b\"\", c\""), std::string::npos);
}

TEST(Numbers, AreWrittenForPeople) {
  EXPECT_EQ(pretty(0.2361), "0.236");
  EXPECT_EQ(pretty(1.0), "1.00");
  EXPECT_EQ(pretty(36.94), "36.9");
  EXPECT_EQ(pretty(1526.4), "1526");
  EXPECT_EQ(pretty(0.9996), "1.00");
  EXPECT_EQ(pretty(1.69e-31), "1.7·10⁻³¹");
  EXPECT_EQ(pretty(1.69e-31, 3, Charset::ascii), "1.7e-31");
  EXPECT_EQ(pretty(2.5e7), "2.5·10⁷");
  EXPECT_EQ(pretty(-0.05), "-0.0500");
  EXPECT_EQ(pretty(0), "0");
  EXPECT_EQ(pretty(kMissing), "–");
  EXPECT_EQ(pretty(std::numeric_limits<double>::infinity()), "∞");
  EXPECT_EQ(percent(0.8736), "87.4\u00a0%");
  EXPECT_EQ(round_digits(123456.7), 123457);
  EXPECT_EQ(round_digits(1.2345678e-31), 1.23457e-31);
}

TEST(Numbers, HaveAsciiStandIns) {
  EXPECT_EQ(to_ascii("1.7·10⁻³¹ of it – π/2"), "1.7e-31 of it - ?/2");
  EXPECT_EQ(to_ascii("below 10⁻³ or 2⁻²⁵, 0.24× a layer, σ²"), "below 1e-3 or 2^-25, 0.24x a layer, sigma^2");
  EXPECT_EQ(to_ascii("plain"), "plain");
}

}  // namespace
}  // namespace gradflow::app
