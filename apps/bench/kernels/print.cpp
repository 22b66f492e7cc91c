// The kernels' figures as a table, JSON and CSV.
#include <fmt/format.h>

#include <iterator>
#include <nlohmann/json.hpp>

#include "apps/bench/kernels/bench_kernels.h"
#include "apps/common/text_table.h"
#include "apps/report/json.h"
#include "gradflow/engine/version.h"

namespace gradflow::app {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::size_t kTableWidth = 100;  // where there is no terminal

double us(double seconds) { return 1e6 * seconds; }
double giga(double rate) { return 1e-9 * rate; }

Json json_of(const Measured& m, double bytes) {
  return {{"median_us", us(m.median)}, {"min_us", us(m.minimum)}, {"max_us", us(m.maximum)},
          {"samples", m.samples},      {"launches", m.launches},  {"gbytes_per_second", giga(m.rate(bytes))}};
}

Json identity(const KernelRow& row) {
  return {{"name", row.name}, {"family", row.family}, {"call", row.call},
          {"pass", row.pass}, {"dtype", row.dtype},   {"size", row.size}};
}

Json json_of(const KernelRow& row) {
  Json j = identity(row);
  j["kernels"] = row.kernels;
  if (row.rows) j["rows"] = row.rows, j["columns"] = row.columns;
  j["read_bytes"] = row.read_bytes;
  j["written_bytes"] = row.written_bytes;
  j["cold"] = json_of(row.cold, row.bytes());
  j["warm"] = json_of(row.warm, row.bytes());
  j["share"] = row.share;
  j["ceiling_gbytes_per_second"] = giga(row.ceiling);
  j["one_element_us"] = us(row.seconds_of_one);
  j["launch_bound"] = row.launch_bound;
  return j;
}

Json without_figures(const std::vector<KernelRow>& rows) {
  Json list = Json::array();
  for (const KernelRow& row : rows) {
    list.push_back(identity(row));
    list.back()["reason"] = row.fault;
  }
  return list;
}

std::string quoted_field(const std::string& text) {
  if (text.find_first_of(",\"\n") == std::string::npos) return text;
  std::string out = "\"";
  for (const char c : text) out += c == '"' ? "\"\"" : std::string(1, c);
  return out + "\"";
}

std::string disturbed(const KernelBenchResult& r) {
  if (!r.load.other_cores || *r.load.other_cores <= 0.05) return {};
  return fmt::format("note: other processes used {:.2f} cores meanwhile\n", *r.load.other_cores);
}

}  // namespace

std::string kernels_text(const KernelBenchResult& r, std::size_t width) {
  const Yardstick& y = r.yardstick;
  std::string out = fmt::format(
      "{} {}, {}\ngradflow {} ({})\n{}\n\n"
      "measured here over {} f32 numbers an array: {} {:.1f} GB/s (median); at best copy {:.1f}, write "
      "{:.1f}, "
      "add {:.1f}, read {:.1f};\na launch with one number {:.2f} us; last cache {}\n\n",
      r.device.name, r.device.model, r.device.libraries, version(), git_revision(), build_summary(),
      size_text(y.elements), y.reference, giga(y.reference_rate), giga(y.ceilings.copy),
      giga(y.ceilings.write), giga(y.ceilings.add), giga(y.ceilings.read), us(y.launch_seconds),
      r.device.cache_bytes ? bytes_text(static_cast<double>(r.device.cache_bytes)) : "of unknown size");
  TextTable table({{"kernel", true, 24},
                   {"size"},
                   {"cold us"},
                   {"GB/s"},
                   {fmt::format("% {}", y.reference)},
                   {"warm us"},
                   {"GB/s"},
                   {"", true}});
  std::size_t size = 0;
  for (const KernelRow& row : r.rows) {
    if (size != 0 && row.size != size) table.add({});
    size = row.size;
    table.add({row.name, size_text(row.size), fmt::format("{:.2f}", us(row.cold.median)),
               fmt::format("{:.1f}", giga(row.cold.rate(row.bytes()))),
               fmt::format("{:.0f}", 100 * row.share), fmt::format("{:.2f}", us(row.warm.median)),
               fmt::format("{:.1f}", giga(row.warm.rate(row.bytes()))),
               row.launch_bound ? "launch-bound" : ""});
  }
  out += table.text(width ? width : kTableWidth);
  for (const KernelRow& row : r.rejected)
    out +=
        fmt::format("ABOVE THE CEILING, not recorded: {} {}: {}\n", row.name, size_text(row.size), row.fault);
  for (const KernelRow& row : r.skipped)
    out += fmt::format("skipped: {} {}: {}\n", row.name, size_text(row.size), row.fault);
  return out + disturbed(r);
}

std::string kernels_json(const KernelBenchOptions& o, const KernelBenchResult& r) {
  const Yardstick& y = r.yardstick;
  Json j = {{"schema", "gradflow-bench-kernels/1"}};
  j["context"] = {{"version", version()},
                  {"git_revision", git_revision()},
                  {"build", build_summary()},
                  {"device", r.device.name},
                  {"device_model", r.device.model},
                  {"libraries", r.device.libraries},
                  {"precision", r.device.precision},
                  {"threads", r.device.threads},
                  {"cache_bytes", r.device.cache_bytes},
                  {"repeat", o.repeat},
                  {"only", o.only}};
  j["yardstick"] = {{"elements", y.elements},
                    {"reference", y.reference},
                    {"reference_gbytes_per_second", giga(y.reference_rate)},
                    {"launch_us", us(y.launch_seconds)},
                    {"margin", kCeilingMargin},
                    {"ceilings_gbytes_per_second",
                     {{"write", giga(y.ceilings.write)},
                      {"copy", giga(y.ceilings.copy)},
                      {"add", giga(y.ceilings.add)},
                      {"read", giga(y.ceilings.read)}}}};
  j["load"] = {{"wall_seconds", r.load.wall_seconds},
               {"our_cores", r.load.our_cores},
               {"other_cores", r.load.other_cores ? Json(*r.load.other_cores) : Json()}};
  Json rows = Json::array();
  for (const KernelRow& row : r.rows) rows.push_back(json_of(row));
  j["rows"] = std::move(rows);
  j["rejected"] = without_figures(r.rejected);
  j["skipped"] = without_figures(r.skipped);
  return json_text(j);
}

std::string kernels_csv(const KernelBenchResult& r) {
  std::string csv =
      "name,family,call,pass,dtype,size,rows,columns,read_bytes,written_bytes,cold_median_us,cold_min_us,"
      "cold_max_us,cold_gbytes_per_second,share,warm_median_us,warm_gbytes_per_second,one_element_us,"
      "launch_bound\n";
  for (const KernelRow& row : r.rows)
    fmt::format_to(
        std::back_inserter(csv),
        "{},{},{},{},{},{},{},{},{},{},{:.4f},{:.4f},{:.4f},{:.3f},{:.4f},{:.4f},{:.3f},{:.4f},{}\n",
        quoted_field(row.name), quoted_field(row.family), row.call, row.pass, row.dtype, row.size, row.rows,
        row.columns, row.read_bytes, row.written_bytes, us(row.cold.median), us(row.cold.minimum),
        us(row.cold.maximum), giga(row.cold.rate(row.bytes())), row.share, us(row.warm.median),
        giga(row.warm.rate(row.bytes())), us(row.seconds_of_one), row.launch_bound ? 1 : 0);
  return csv;
}

}  // namespace gradflow::app
