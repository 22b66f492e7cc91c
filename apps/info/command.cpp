#include "apps/info/command.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "apps/common/text_table.h"
#include "gradflow/engine/version.h"
#include "gradflow/kernels/backend.h"

namespace gradflow::app {
namespace {

// The vector extensions of this processor that matter here, widest last.
std::string instruction_sets() {
  std::string names;
  const auto add = [&](bool there, const char* name) {
    if (there) names += (names.empty() ? "" : " ") + std::string(name);
  };
#if defined(__x86_64__)
  __builtin_cpu_init();
  add(__builtin_cpu_supports("sse4.2"), "SSE4.2");
  add(__builtin_cpu_supports("avx"), "AVX");
  add(__builtin_cpu_supports("avx2"), "AVX2");
  add(__builtin_cpu_supports("fma"), "FMA");
  add(__builtin_cpu_supports("avx512f"), "AVX-512F");
  add(__builtin_cpu_supports("avx512vnni"), "AVX-512VNNI");
  add(__builtin_cpu_supports("avx512bf16"), "AVX-512BF16");
#elif defined(__aarch64__)
  add(true, "NEON");
#endif
  return names.empty() ? "unknown" : names;
}

struct Facts {
  kernels::DeviceInfo cpu;
  std::vector<kernels::DeviceInfo> cuda;
  std::string no_cuda;  // the reason, if there is none
};

Facts gather() {
  Facts f;
  f.cpu = kernels::open_cpu()->info();
  const int count = kernels::cuda_device_count(&f.no_cuda);
  for (int i = 0; i < count; ++i) f.cuda.push_back(kernels::open_cuda(i)->info());
  return f;
}

nlohmann::ordered_json json_of(const kernels::DeviceInfo& d) {
  return {{"name", d.name},       {"model", d.model},         {"memory_bytes", d.memory_bytes},
          {"threads", d.threads}, {"libraries", d.libraries}, {"precision", d.precision}};
}

void print_json(const Facts& f) {
  nlohmann::ordered_json j = {
      {"version", version()}, {"git_revision", git_revision()}, {"build", build_summary()}};
  j["devices"].push_back(json_of(f.cpu));
  j["devices"].back()["instruction_sets"] = instruction_sets();
  for (const auto& d : f.cuda) j["devices"].push_back(json_of(d));
  j["cuda"] = {{"available", !f.cuda.empty()}};
  if (f.cuda.empty()) j["cuda"]["reason"] = f.no_cuda;
  fmt::print("{}\n", j.dump(2, ' ', false, nlohmann::ordered_json::error_handler_t::replace));
}

void print_device(const kernels::DeviceInfo& d, std::string_view more) {
  fmt::print("{:<9} {}\n          {}{}, {} of memory\n          {}\n          {}\n", d.name, d.model,
             d.threads, more, bytes_text(static_cast<double>(d.memory_bytes)), d.libraries, d.precision);
}

void print_text(const Facts& f) {
  fmt::print("gradflow  {}, revision {}\nbuild     {}\n", version(), git_revision(), build_summary());
  print_device(f.cpu, fmt::format(" thread{}, {}", f.cpu.threads == 1 ? "" : "s", instruction_sets()));
  for (const auto& d : f.cuda) print_device(d, " multiprocessors");
  if (f.cuda.empty()) fmt::print("cuda      no CUDA device: {}\n", f.no_cuda);
}

}  // namespace

void add_info(CLI::App& app, std::function<int()>& run) {
  CLI::App* command = app.add_subcommand("info", "version, build, devices or why there is none");
  const auto json = std::make_shared<bool>(false);
  command->add_flag("--json", *json, "as JSON");
  command->footer(
      "Environment:\n"
      "  GRADFLOW_CUDA_MODULE=FILE  opens this libgradflow_cuda.so instead of looking for one\n"
      "  GRADFLOW_CUDA_SYNC=1       waits after every kernel, so that a fault names the one that made it\n"
      "  GRADFLOW_NVTX=0            leaves out the names of layers in profilers' timelines\n"
      "  GRADFLOW_FASHION_MNIST=DIR where the data set fashion-mnist lies, if not where Debian's package puts it\n"
      "  OMP_NUM_THREADS=N          threads of the host\n"
      "Examples:\n  gradflow info\n  gradflow info --json | python3 -m json.tool");
  command->callback([&run, json] {
    run = [json] {
      const Facts facts = gather();
      *json ? print_json(facts) : print_text(facts);
      return 0;
    };
  });
}

}  // namespace gradflow::app
