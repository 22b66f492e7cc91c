// `gradflow bench kernels`: its list of cases, what it believes, and what it writes.
#include "apps/bench/kernels/bench_kernels.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <regex>
#include <set>
#include <sstream>

#include "apps/xml_check.h"
#include "gradflow/engine/device.h"
#include "gradflow/engine/file.h"
#include "gradflow/kernels/error.h"

namespace gradflow::app {
namespace {

std::string reason(const std::function<void()>& action) {
  try {
    action();
  } catch (const UserError& e) {
    return e.what();
  }
  return "";
}

// The contract's operations, read from its header: one that is added there and forgotten here is found.
TEST(KernelCases, CoverEveryOperationOfTheContract) {
  std::set<std::string> called;
  for (const KernelCase& c : kernel_cases(DType::f32)) called.insert(c.call);
  const std::string header = read_file(GRADFLOW_SOURCE_DIR "/kernels/include/gradflow/kernels/backend.h");
  const std::regex operation(R"(virtual void (\w+)\(const \w+& \w+\) = 0;)");
  std::size_t found = 0;
  for (std::sregex_iterator at(header.begin(), header.end(), operation), end; at != end; ++at, ++found)
    EXPECT_TRUE(called.contains((*at)[1])) << (*at)[1] << " has no case in apps/bench/kernels/cases_*.cpp";
  EXPECT_GE(found, 13u);
  for (const char* other : {"fill", "prepare_update", "prepare_matmul"}) EXPECT_TRUE(called.contains(other));
}

TEST(KernelCases, HaveNamesOfTheirOwn) {
  std::set<std::string> names;
  for (const DType dtype : {DType::f32, DType::f64, DType::bf16})
    for (const KernelCase& c : kernel_cases(dtype)) {
      EXPECT_TRUE(names.insert(c.name).second) << c.name << " twice";
      EXPECT_NE(c.name.find(std::string("_") + std::string(name_of(dtype))), std::string::npos) << c.name;
      EXPECT_FALSE(c.kernels.empty()) << c.name;
      EXPECT_FALSE(c.family.empty() || c.pass.empty()) << c.name;
    }
  EXPECT_TRUE(names.contains("relu_backward_f32"));
  EXPECT_TRUE(names.contains("softmax_cross_entropy_f32/classes=10"));
}

// Bytes that must be moved are bytes of operands: never more than each operand once read and once written
// (batch norm reads x twice: a mean comes before what uses it).
TEST(KernelCases, MoveNoMoreThanTheirOperands) {
  for (const KernelCase& c : kernel_cases(DType::f32))
    for (const std::size_t size : {std::size_t{1}, std::size_t{1000}, std::size_t{1} << 20}) {
      const Work w = c.work(size);
      double bytes = 0;
      for (const Operand& o : w.operands) bytes += static_cast<double>(o.bytes());
      const double times = c.family == "batch norm" ? 2 : 1;
      EXPECT_LE(w.read_bytes, times * bytes) << c.name;
      EXPECT_LE(w.written_bytes, bytes) << c.name;
      EXPECT_GE(w.bytes(), c.call == "gather_batch" ? 4.0 * static_cast<double>(w.rows) : 1) << c.name;
      EXPECT_LE(w.rows * w.columns, std::max<std::size_t>(size, 4)) << c.name;  // a pack of channels is whole
    }
}

const TrafficCeilings kCeilings{.write = 150, .copy = 100, .add = 110, .read = 130};

TEST(Ceiling, LiesBetweenTheMeasuredMixtures) {
  EXPECT_EQ(kCeilings.of(0, 8), 150);
  EXPECT_EQ(kCeilings.of(4, 4), 100);
  EXPECT_EQ(kCeilings.of(8, 4), 110);
  EXPECT_EQ(kCeilings.of(4, 0), 130);
  EXPECT_EQ(kCeilings.of(4.01, 4), 100) << "a few indices make no other mixture";
  EXPECT_EQ(kCeilings.of(4, 8), 150) << "between write and copy";
  EXPECT_EQ(kCeilings.of(12, 8), 110) << "between copy and add";
  EXPECT_EQ(kCeilings.of(12, 4), 130) << "between add and read";
}

KernelRow timed(double read, double written, double seconds, double seconds_of_one = 1e-6) {
  KernelRow row{
      .name = "made_up_f32", .read_bytes = read, .written_bytes = written, .seconds_of_one = seconds_of_one};
  row.cold.median = seconds;
  return row;
}

TEST(Ceiling, ARateAboveItIsRefused) {
  Yardstick y{.ceilings = {.write = 150e9, .copy = 100e9, .add = 110e9, .read = 130e9},
              .reference = "copy",
              .reference_rate = 95e9};
  KernelRow row = timed(500e6, 500e6, 0.0100);  // 100 GB/s, the ceiling itself
  judge(row, y);
  EXPECT_EQ(row.fault, "");
  EXPECT_NEAR(row.share, 100.0 / 95, 1e-12);
  EXPECT_FALSE(row.launch_bound);
  row = timed(500e6, 500e6, 1 / 102.9);  // within the margin
  judge(row, y);
  EXPECT_EQ(row.fault, "");
  row = timed(500e6, 500e6, 1 / 103.1);
  judge(row, y);
  EXPECT_EQ(row.fault, "103.1 GB/s, and 100.0 is the most that was measured for such traffic");
  row = timed(1e9, 0, 1 / 103.1);  // reading alone may be that fast
  judge(row, y);
  EXPECT_EQ(row.fault, "");
  for (const double no_time : {0.0, -1.0, std::numeric_limits<double>::quiet_NaN()}) {
    row = timed(500e6, 500e6, no_time);
    judge(row, y);
    EXPECT_NE(row.fault, "") << no_time;
  }
  // A ceiling that was not measured lets nothing through.
  row = timed(500e6, 500e6, 1);
  judge(row, Yardstick{});
  EXPECT_NE(row.fault, "");
}

TEST(Ceiling, SmallWorkIsLaunchBound) {
  const Yardstick y{.ceilings = {.copy = 1e12}, .reference_rate = 1e12};
  KernelRow small = timed(1e6, 1e6, 5e-6, 3e-6);  // 2 us at the ceiling, 3 us with one element
  judge(small, y);
  EXPECT_TRUE(small.launch_bound);
  KernelRow large = timed(2e6, 2e6, 6e-6, 3e-6);
  judge(large, y);
  EXPECT_FALSE(large.launch_bound);
}

TEST(KernelBench, RefusesWhatMakesNoSense) {
  for (const char* size : {"", "0", "-1", "2^", "2^41", "1e6", "2^3^2", "9999999999999999999999", "abc"})
    EXPECT_NE(reason([&] { parse_sizes({size}); }).find("is no size"), std::string::npos) << size;
  EXPECT_EQ(parse_sizes({"2^0", "7", "2^40"}), (std::vector<std::size_t>{1, 7, std::size_t{1} << 40}));
  EXPECT_EQ(size_text(1 << 20), "2^20");
  EXPECT_EQ(size_text(1000000), "1000000");
  EXPECT_EQ(size_text(1), "1");
  const auto cpu = open_device("cpu", 1);
  EXPECT_NE(reason([&] { choose_cases({.only = "("}, *cpu); }).find("'(' is no regular expression"),
            std::string::npos);
  EXPECT_NE(reason([&] {
              choose_cases({.only = "relu_backwards_f32"}, *cpu);
            }).find("did you mean relu_backward_f32?"),
            std::string::npos);
  EXPECT_NE(reason([&] { choose_cases({.dtypes = {"f16"}}, *cpu); }).find("'f16' is no dtype"),
            std::string::npos);
  EXPECT_EQ(choose_cases({.only = "^relu_backward_f32$"}, *cpu).size(), 1u);
  EXPECT_EQ(choose_cases({.only = "^relu_backward_f", .dtypes = {"f64"}}, *cpu).front().name,
            "relu_backward_f64");
}

// Every case runs on the host, at a size that no column count divides.
TEST(KernelBench, EveryCaseRunsOnTheHost) {
  const auto cpu = open_device("cpu", 2);
  OperandPool pool(*cpu);
  for (const DType dtype : {DType::f32, DType::f64})
    for (const KernelCase& c : kernel_cases(dtype))
      for (const std::size_t size : {std::size_t{1}, std::size_t{5003}}) {
        const Work work = c.work(size);
        for (const auto& set : pool.fill(work, 3)) EXPECT_NO_THROW(c.bind(*cpu, work, set)()) << c.name;
      }
}

TEST(KernelBench, CopiesOfOperandsAreApartAndFilled) {
  const auto cpu = open_device("cpu", 1);
  OperandPool pool(*cpu);
  const Work work{.operands = {{.elements = 1000},
                               {Content::labels, DType::i32, 70, 7},
                               {Content::zero, DType::u8, 3},
                               {.elements = 0},
                               {Content::rows, DType::i32, 70},
                               {Content::positive, DType::f64, 9}}};
  const auto sets = pool.fill(work, 4);
  ASSERT_EQ(sets.size(), 4u);
  std::set<const void*> starts;
  for (const auto& set : sets) {
    ASSERT_EQ(set.size(), 6u);
    EXPECT_EQ(set[3], nullptr);
    for (const std::size_t i : {0, 1, 2, 4, 5}) {
      EXPECT_TRUE(starts.insert(set[i]).second);
      EXPECT_EQ(reinterpret_cast<std::uintptr_t>(set[i]) % 256, 0u);
    }
    double squares = 0;
    for (int i = 0; i < 1000; ++i) squares += std::pow(static_cast<const float*>(set[0])[i], 2);
    EXPECT_NEAR(squares / 1000, 1, 0.25) << "normal numbers: five standard deviations of a mean of squares";
    std::set<std::int32_t> rows;
    for (int i = 0; i < 70; ++i) {
      const std::int32_t label = static_cast<const std::int32_t*>(set[1])[i];
      EXPECT_TRUE(label >= 0 && label < 7);
      rows.insert(static_cast<const std::int32_t*>(set[4])[i]);
    }
    EXPECT_EQ(rows.size(), 70u);
    EXPECT_EQ(*rows.rbegin(), 69);
    EXPECT_EQ(std::string(static_cast<const char*>(set[2]), 3), std::string(3, '\0'));
    for (int i = 0; i < 9; ++i) EXPECT_GE(static_cast<const double*>(set[5])[i], 0);
  }
}

KernelBenchResult sample() {
  KernelBenchResult r{.device = {.name = "cuda:0", .model = "A <model> & more"},
                      .yardstick = {.ceilings = {.write = 9e11, .copy = 1e12, .add = 1e12, .read = 1e12},
                                    .reference = "copy",
                                    .reference_rate = 9.9e11,
                                    .elements = 1 << 26}};
  for (const std::size_t size : {std::size_t{1000}, std::size_t{1} << 26}) {
    KernelRow row{.name = "relu_forward_f32",
                  .family = "pointwise",
                  .call = "pointwise_forward",
                  .pass = "forward",
                  .dtype = "f32",
                  .size = size,
                  .read_bytes = 4.0 * static_cast<double>(size),
                  .written_bytes = 4.0 * static_cast<double>(size),
                  .seconds_of_one = 2e-6};
    row.cold = {.median = 2e-6 + row.bytes() / 0.95e12,
                .minimum = 1e-6,
                .maximum = 1e-3,
                .samples = 20,
                .launches = 3};
    row.warm = row.cold;
    judge(row, r.yardstick);
    EXPECT_EQ(row.fault, "");
    r.rows.push_back(row);
  }
  r.rejected = {r.rows[1]};
  r.rejected[0].name = "too_good_f32";
  r.rejected[0].fault = "2000.0 GB/s, and 1000.0 is the most, \"they\" say";
  return r;
}

TEST(KernelBenchOutput, JsonHoldsTheRowsAndNoFigureOfARejectedOne) {
  const auto j = nlohmann::json::parse(kernels_json({}, sample()));
  EXPECT_EQ(j.at("schema"), "gradflow-bench-kernels/1");
  ASSERT_EQ(j.at("rows").size(), 2u);
  const auto& row = j.at("rows")[1];
  EXPECT_EQ(row.at("size"), 1 << 26);
  EXPECT_NEAR(row.at("cold").at("gbytes_per_second").get<double>(), 950, 10);
  EXPECT_NEAR(row.at("share").get<double>(), 0.95 / 0.99, 0.01);
  EXPECT_FALSE(row.at("launch_bound"));
  EXPECT_TRUE(j.at("rows")[0].at("launch_bound"));
  ASSERT_EQ(j.at("rejected").size(), 1u);
  EXPECT_EQ(j.at("rejected")[0].at("name"), "too_good_f32");
  for (const char* figure : {"cold", "warm", "share"}) EXPECT_FALSE(j.at("rejected")[0].contains(figure));
}

TEST(KernelBenchOutput, CsvHasAsManyFieldsInEveryLine) {
  std::istringstream lines(kernels_csv(sample()));
  std::string line;
  std::size_t count = 0;
  for (; std::getline(lines, line); ++count) EXPECT_EQ(std::ranges::count(line, ','), 18) << line;
  EXPECT_EQ(count, 3u);
}

TEST(KernelBenchOutput, PictureIsWellFormed) {
  const std::string svg = kernels_svg(sample());
  EXPECT_EQ(xml_fault(svg), "");
  EXPECT_NE(svg.find("A &lt;model&gt; &amp; more"), std::string::npos);
  EXPECT_EQ(svg.find("href"), std::string::npos);
  EXPECT_EQ(svg.find("too_good"), std::string::npos);
  EXPECT_EQ(xml_fault(kernels_svg({})), "") << "nothing measured";
}

TEST(KernelBenchOutput, TableFitsIntoAHundredColumns) {
  KernelBenchResult r = sample();
  r.rows[0].name = "softmax_cross_entropy_f32/classes=1000";
  for (std::istringstream lines(kernels_text(r, 0)); lines;) {
    std::string line;
    std::getline(lines, line);
    const bool sentence = line.find("measured here") == 0 || line.find("ABOVE THE CEILING") == 0;
    EXPECT_TRUE(sentence || line.size() <= 100) << line;
  }
  EXPECT_NE(kernels_text(r, 0).find("launch-bound"), std::string::npos);
  EXPECT_NE(kernels_text(r, 0).find("ABOVE THE CEILING, not recorded: too_good_f32"), std::string::npos);
}

}  // namespace
}  // namespace gradflow::app
