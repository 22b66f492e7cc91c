// What people see: terminal, sentences, figures and page, from the sample study and from altered ones.
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <regex>
#include <sstream>
#include <string>

#include "apps/report/findings.h"
#include "apps/report/headline.h"
#include "apps/report/html.h"
#include "apps/report/json.h"
#include "apps/report/pair_views.h"
#include "apps/report/svg.h"
#include "apps/report/svg_writer.h"
#include "apps/report/terminal.h"
#include "apps/report/write.h"
#include "apps/sample_pair.h"
#include "apps/sample_study.h"
#include "apps/xml_check.h"
#include "gradflow/engine/file.h"
#include "gradflow/kernels/error.h"

namespace gradflow::app {
namespace {

const Finding* find(const std::vector<Finding>& findings, const std::string& id) {
  for (const Finding& finding : findings) {
    if (finding.id == id) return &finding;
  }
  return nullptr;
}

NetworkResult& network(StudyResult& study, const std::string& id) {
  for (NetworkResult& candidate : study.networks) {
    if (candidate.id == id) return candidate;
  }
  throw std::logic_error("the sample has no " + id);
}

TEST(XmlCheck, CanFail) {
  EXPECT_EQ(xml_fault("<a b=\"c\"><d/>x &lt; y</a>"), "");
  EXPECT_NE(xml_fault("<a><b></a></b>"), "");
  EXPECT_NE(xml_fault("<a b=c/>"), "");
  EXPECT_NE(xml_fault("<a>x & y</a>"), "");
  EXPECT_NE(xml_fault("<a>"), "");
}

TEST(Figures, AreWellFormedAndNameEverything) {
  const std::vector<Figure> all = figures(sample_study());
  std::string names;
  for (const Figure& figure : all) {
    names += figure.file_name + " ";
    EXPECT_EQ(xml_fault(figure.svg), "") << figure.file_name;
    EXPECT_EQ(figure.svg.find("nan"), std::string::npos) << figure.file_name;
    EXPECT_EQ(figure.svg.find("inf"), std::string::npos) << figure.file_name;
    EXPECT_NE(figure.svg.find("prefers-color-scheme:dark"), std::string::npos);
    EXPECT_EQ(figure.svg.find("http", figure.svg.find("http://www.w3.org/2000/svg") + 5), std::string::npos);
  }
  std::string known;
  for (const std::string_view name : kFigureNames) known += std::string(name) + " ";
  EXPECT_EQ(names, known);
  EXPECT_NE(all[0].svg.find("class=\"prediction\""), std::string::npos);
}

TEST(Figures, OfNothingAreNone) {
  StudyResult study = sample_study();
  for (NetworkResult& n : study.networks) {
    n.moments.clear();
    n.curve.clear();
  }
  for (NetworkResult& n : study.pair->networks) n.moments.clear();
  EXPECT_TRUE(figures(study).empty());
  study.pair.reset();
  EXPECT_TRUE(figures(study).empty());
}

TEST(Labels, MoveApartButNotFurther) {
  EXPECT_EQ(spread_labels({10, 50}, 10, 0, 100), (std::vector<double>{10, 50}));
  const std::vector<double> close = spread_labels({50, 50, 50}, 10, 0, 100);
  EXPECT_EQ(close, (std::vector<double>{40, 50, 60}));
  const std::vector<double> edge = spread_labels({99, 98}, 10, 0, 100);
  EXPECT_EQ(edge, (std::vector<double>{100, 90}));
}

TEST(Headline, CountsWhatWasMeasured) {
  StudyResult study = sample_study();
  EXPECT_NE(headline(study).claim.find("vanishes in 3 of 12"), std::string::npos) << headline(study).claim;
  EXPECT_NE(headline(study).claim.find("vanishes in none of 12"), std::string::npos);
  EXPECT_NE(headline(study).detail.find("1.7·10⁻³¹"), std::string::npos) << headline(study).detail;
  network(study, "residual-relu-xavier-bn").at_init.kind = VerdictKind::vanishes;
  EXPECT_NE(headline(study).claim.find("with skips it vanishes in 1 of 12"), std::string::npos)
      << headline(study).claim;
  study.networks.clear();
  EXPECT_EQ(headline(study).claim, "No network was measured.");
}

TEST(Findings, ClaimOnlyWhatTheNumbersShow) {
  StudyResult study = sample_study();
  const Finding before = *find(findings(study), "relu");
  EXPECT_EQ(before.theory, Finding::Theory::agrees);
  EXPECT_NE(before.title.find("does not cure"), std::string::npos);
  // Had ReLU with Xavier kept the gradient, the title may not claim that it did not.
  Verdict& measured = network(study, "plain-relu-xavier-none").at_init;
  measured.factor_per_layer = 1.0;
  measured.end_to_end = 1.0;
  measured.kind = VerdictKind::healthy;
  const Finding after = *find(findings(study), "relu");
  EXPECT_EQ(after.title.find("does not cure"), std::string::npos);
  EXPECT_EQ(after.theory, Finding::Theory::differs);
  EXPECT_NE(after.measured.find("1.00"), std::string::npos) << after.measured;
}

TEST(Findings, FollowTheSigmoidAndTheSkips) {
  StudyResult study = sample_study();
  EXPECT_NE(find(findings(study), "sigmoid")->title.find("loses the gradient"), std::string::npos);
  network(study, "plain-sigmoid-he-none").at_init.kind = VerdictKind::healthy;
  EXPECT_EQ(find(findings(study), "sigmoid")->title.find("loses the gradient"), std::string::npos);
  EXPECT_NE(find(findings(study), "skip")->title.find("stops the vanishing"), std::string::npos);
  network(study, "residual-tanh-he-none").at_init.end_to_end = 1e-9;
  EXPECT_EQ(find(findings(study), "skip")->title.find("stops the vanishing"), std::string::npos);
}

// One run of `gradflow train`: nothing is said of a comparison, nor of theory where chance decides.
TEST(Findings, OfOneNetworkCompareNothing) {
  StudyResult study = sample_study();
  std::erase_if(study.networks, [](const NetworkResult& n) { return n.id != "plain-relu-he-none"; });
  ASSERT_EQ(study.networks.size(), 1u);
  NetworkResult& n = study.networks[0];
  n.moments[0].seeds = 1;
  n.width = 256;
  n.at_init.factor_per_layer = 1.05 * n.at_init.predicted_factor;
  EXPECT_EQ(find(findings(study), "learning"), nullptr);
  const std::vector<Finding> wide = findings(study);
  EXPECT_TRUE(find(wide, "predictions")->title.starts_with("Theory predicts ×0.996 a layer, ×1.05 was measured"))
      << find(wide, "predictions")->title;
  EXPECT_NE(find(wide, "predictions")->why.find("; here there is one initialization."), std::string::npos);
  EXPECT_EQ(find(wide, "relu")->theory, Finding::Theory::differs);
  n.width = 32;  // 5 % is what one draw in ten misses by
  EXPECT_EQ(find(findings(study), "relu")->theory, Finding::Theory::silent);
}

TEST(Findings, AreSilentAboutNetworksThatAreMissing) {
  StudyResult study = sample_study();
  std::erase_if(study.networks,
                [](const NetworkResult& n) { return n.activation == "tanh" || n.norm == "bn"; });
  const std::vector<Finding> left = findings(study);
  EXPECT_EQ(find(left, "tanh"), nullptr);
  EXPECT_EQ(find(left, "batch-norm"), nullptr);
  EXPECT_NE(find(left, "relu"), nullptr);
}

TEST(Terminal, FitsAHundredColumns) {
  for (const Charset charset : {Charset::utf8, Charset::ascii}) {
    std::istringstream lines(
        terminal_report(sample_study(), {.color = false, .charset = charset, .columns = 100}));
    for (std::string line; std::getline(lines, line);) EXPECT_LE(display_width(line), 100) << line;
  }
}

// A narrower terminal would break each row in two.
TEST(Terminal, FitsEightyColumns) {
  for (const Charset charset : {Charset::utf8, Charset::ascii}) {
    const std::string text = terminal_report(sample_study(), {.color = false, .charset = charset, .columns = 80});
    std::istringstream lines(text);
    for (std::string line; std::getline(lines, line);) EXPECT_LE(display_width(line), 80) << line;
    EXPECT_EQ(text.find("predicted  "), std::string::npos);
    EXPECT_NE(text.find("accuracy  at step 0   trained"), std::string::npos);
  }
}

TEST(Terminal, SaysEveryVerdictAndThreshold) {
  const StudyResult study = sample_study();
  const std::string text = terminal_report(study);
  for (const char* part : {"sigmoid Xavier BN", "vanishes", "explodes", "healthy", "does not learn",
                           "diverged", "predicted", "0.236"}) {
    EXPECT_NE(text.find(part), std::string::npos) << part;
  }
  EXPECT_NE(text.find("0.001"), std::string::npos);
  EXPECT_EQ(text.find('\033'), std::string::npos);
  EXPECT_NE(text.find("accuracy  at step 0   trained"), std::string::npos) << "columns that run into each other";
}

TEST(Terminal, ColorsOnlyWhenAskedAndAsciiStaysAscii) {
  const std::string colored =
      terminal_report(sample_study(), {.color = true, .charset = Charset::utf8, .columns = 100});
  EXPECT_NE(colored.find("\033[34m"), std::string::npos);
  const std::string ascii =
      terminal_report(sample_study(), {.color = false, .charset = Charset::ascii, .columns = 100});
  for (const char c : ascii) ASSERT_TRUE(static_cast<unsigned char>(c) < 128);
  // Only the title asks; elsewhere a ? would stand for a character without a stand-in.
  EXPECT_EQ(ascii.find('?', ascii.find('\n')), std::string::npos);
}

TEST(Terminal, SurvivesAStudyOfNothing) {
  StudyResult study = sample_study();
  for (NetworkResult& n : study.networks) n.moments.clear();
  EXPECT_NE(terminal_report(study).find("network"), std::string::npos);
  study.networks.clear();
  EXPECT_NE(terminal_report(study).find("No network"), std::string::npos);
}

TEST(Pair, IsShownWithItsAnswers) {
  StudyResult study = sample_study();
  std::string text = terminal_report(study), page = report_html(study);
  EXPECT_NE(text.find("holds  The gradient explodes toward the input"), std::string::npos) << text;
  EXPECT_NE(page.find("id=\"pair-collapse\"><p class=\"theory theory-agrees\">"), std::string::npos);
  EXPECT_NE(page.find("1.190 <small>(1.190)</small>"), std::string::npos);  // measured (simulated)
  EXPECT_NE(headline(study).detail.find("5 of 5 predictions hold"), std::string::npos) << headline(study).detail;
  // Had the plain network's gradient been level from the start, the answer would be no.
  for (LayerRow& row : study.pair->networks[0].moments[0].layers) row.gradient_norm = 1;
  text = terminal_report(study);
  EXPECT_NE(text.find("fails  The gradient explodes toward the input"), std::string::npos) << text;
  EXPECT_NE(report_html(study).find("id=\"pair-explodes\"><p class=\"theory theory-differs\">"), std::string::npos);
}

TEST(Pair, SaysWhyItWasNotRun) {
  StudyResult study = sample_study();
  study.pair = PairResult{.why_not = "images of 1x1x784 are too small"};
  for (const std::string& text : {terminal_report(study), report_html(study)})
    EXPECT_NE(text.find("Not run: images of 1x1x784 are too small."), std::string::npos);
  study.pair.reset();
  EXPECT_EQ(report_html(study).find("id=\"pair\""), std::string::npos);
  EXPECT_EQ(terminal_report(study).find("The pair"), std::string::npos);
}

TEST(Pair, DrawsTheFirstStepsAndTheLast) {
  PairResult pair = sample_pair();
  EXPECT_EQ(pair_steps(pair), (std::vector<int>{0, 1, 2, 5, 40, 120}));
  for (NetworkResult& n : pair.networks) std::erase_if(n.moments, [](const Moment& m) { return m.step == 40; });
  EXPECT_EQ(pair_steps(pair), (std::vector<int>{0, 1, 2, 5, 20, 120}));
  for (NetworkResult& n : pair.networks) n.moments.resize(2);
  EXPECT_EQ(pair_steps(pair), (std::vector<int>{0, 1}));
}

TEST(Sparkline, HasOneMarkPerLevel) {
  const std::vector<double> edges = {-3, -2, -1, 0, 1, 2, 3};
  EXPECT_EQ(sparkline({-9, -3, -2, -1, 0, 1, 2, 3}, edges, 8), "▁▂▃▄▅▆▇█");
  EXPECT_EQ(sparkline({-9, kMissing, 9}, edges, 8), "▁ █");
  EXPECT_EQ(sparkline({0, 1, 2, 3, 4, 5, 6, 7, 8}, edges, 3, Charset::ascii), "~##");
  EXPECT_EQ(sparkline({}, edges, 3), "");
}

TEST(Wrap, KeepsMarginsAndLongWords) {
  EXPECT_EQ(wrap("one two three", 8, 2), "one two\n  three");
  EXPECT_EQ(wrap("  one two", 5, 2), "  one\n  two");
  EXPECT_EQ(wrap("abcdefghij k", 4, 0), "abcdefghij\nk");
  EXPECT_EQ(wrap("", 4, 0), "");
}

TEST(Html, EscapesWhatComesFromOutside) {
  EXPECT_EQ(html_escape("<a href=\"x\">&'"), "&lt;a href=&quot;x&quot;&gt;&amp;&#39;");
  StudyResult study = sample_study();
  study.title = "</title><script>alert(1)</script>";
  study.command = "--out '</script><!-- <script>'";
  study.networks[1].title = "<img src=x onerror=alert(1)>";
  const std::string page = report_html(study);
  EXPECT_EQ(page.find("<script>alert"), std::string::npos);
  EXPECT_EQ(page.find("<img"), std::string::npos);
  EXPECT_EQ(page.find("<!--"), std::string::npos);
  // The data survives the escaping.
  const std::string open = "<script type=\"application/json\" id=\"study\">";
  const std::size_t from = page.find(open) + open.size();
  const StudyResult back = parse_report(page.substr(from, page.find("</script>", from) - from));
  EXPECT_EQ(back.command, study.command);
}

// A path may hold any bytes: the page must come out all the same, after the other files have been written.
TEST(Html, TakesBytesThatAreNoUtf8) {
  StudyResult study = sample_study();
  study.command = "gradflow demo --data idx:/data/\xff\xfe";
  const std::string page = report_html(study);
  EXPECT_NE(page.find("idx:/data/\uFFFD\uFFFD\""), std::string::npos);
}

// The page's numbers and the verdicts beside them are of one fit.
TEST(Html, HoldsTheFittedFactorOfEveryMoment) {
  const StudyResult study = sample_study();
  const std::string page = report_html(study);
  const std::string open = "<script type=\"application/json\" id=\"derived\">";
  const std::size_t from = page.find(open) + open.size();
  const auto factors = nlohmann::json::parse(page.substr(from, page.find("</script>", from) - from)).at("factors");
  for (const NetworkResult& n : study.networks) {
    if (n.yardstick) continue;
    ASSERT_EQ(factors.at(n.id).size(), n.moments.size());
    // 6 digits are written.
    EXPECT_NEAR(factors.at(n.id)[0].get<double>() / n.at_init.factor_per_layer, 1, 5.001e-6) << n.id;
  }
}

TEST(Html, AsksTheNetworkForNothing) {
  const std::string page = report_html(sample_study());
  EXPECT_NE(page.find("default-src 'none'"), std::string::npos);
  static const std::regex outside(R"re((src|href|action)\s*=\s*"(?!#))re");
  EXPECT_FALSE(std::regex_search(page.substr(0, page.find("<script")), outside));
  EXPECT_EQ(page.find("@import"), std::string::npos);
  EXPECT_EQ(page.find("url("), std::string::npos);
}

TEST(Html, SaysWhatIsBehindItsNumbers) {
  StudyResult study = sample_study();
  const auto says = [&](std::string_view words) { return report_html(study).find(words) != std::string::npos; };
  EXPECT_FALSE(says("Held-out data"));  // a report of before it was noted
  study.held_out = 2000;
  study.held_out_last = 10000;
  EXPECT_TRUE(says("the first 2000 images behind a point of a curve"));
  EXPECT_TRUE(says("10000 behind the last step"));
  study.held_out = 10000;
  EXPECT_TRUE(says("10000 images behind every accuracy"));
  EXPECT_TRUE(says("1; 8 initializations measured at step 0"));
  study.init_seeds = 1;
  EXPECT_TRUE(says("1; 1 initialization measured at step 0"));
}

TEST(Html, SaysWhenAStudyWasInterrupted) {
  StudyResult study = sample_study();
  EXPECT_EQ(report_html(study).find("Interrupted."), std::string::npos);
  study.interrupted = true;
  EXPECT_NE(report_html(study).find("Interrupted."), std::string::npos);
}

TEST(Html, TemplateMustBeFilled) {
  EXPECT_EQ(fill_template("a {{b}} c", {{"b", "{{d}}"}}), "a {{d}} c");
  EXPECT_THROW(fill_template("a {{b}} c", {{"x", "y"}}), InternalError);
  EXPECT_THROW(fill_template("a {{b", {{"b", "y"}}), InternalError);
}

TEST(WriteReport, MakesAllFilesAndTheSameAgain) {
  namespace fs = std::filesystem;
  const fs::path dir = fs::path(::testing::TempDir()) / "gradflow_report_test";
  fs::remove_all(dir);
  write_report(sample_study(), dir / "first");
  render_from_json(dir / "first" / "report.json", dir / "second");
  for (const char* name : {"report.json", "layers.csv", "curves.csv", "figures/overview.svg", "figures/accuracy.svg"}) {
    EXPECT_EQ(read_file(dir / "first" / name), read_file(dir / "second" / name)) << name;
  }
  EXPECT_GT(fs::file_size(dir / "second" / "report.html"), 1'000'000u);
  // Another study in the same folder leaves none of this one's figures, and nothing of anybody else's is touched.
  write_file_atomically(dir / "first" / "figures" / "mine.svg", "<svg/>");
  StudyResult without = sample_study();
  without.pair.reset();
  write_report(without, dir / "first");
  EXPECT_FALSE(fs::exists(dir / "first" / "figures" / "first-steps.svg"));
  EXPECT_TRUE(fs::exists(dir / "first" / "figures" / "overview.svg"));
  EXPECT_TRUE(fs::exists(dir / "first" / "figures" / "mine.svg"));
  fs::remove_all(dir);
}

TEST(WriteReport, NamesTheFileThatIsNoReport) {
  namespace fs = std::filesystem;
  const fs::path file = fs::path(::testing::TempDir()) / "gradflow_not_a_report.json";
  write_file_atomically(file, "{\"schema\": \"something else\"}");
  try {
    render_from_json(file, fs::path(::testing::TempDir()) / "gradflow_never_written");
    FAIL() << "a foreign file was accepted";
  } catch (const UserError& error) {
    EXPECT_NE(std::string(error.what()).find("gradflow_not_a_report.json"), std::string::npos);
  }
  EXPECT_FALSE(fs::exists(fs::path(::testing::TempDir()) / "gradflow_never_written"));
  fs::remove(file);
}

}  // namespace
}  // namespace gradflow::app
