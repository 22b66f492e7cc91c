#include "gradflow/engine/device.h"

#include <fmt/format.h>

#include <charconv>

#include "gradflow/engine/text.h"
#include "gradflow/kernels/error.h"

namespace gradflow {
namespace {

// The ordinal in "cuda" or "cuda:N"; -1 if the name is of another form.
int cuda_ordinal(std::string_view name) {
  if (name == "cuda") return 0;
  if (!name.starts_with("cuda:")) return -1;
  name.remove_prefix(5);
  int ordinal = -1;
  const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), ordinal);
  return error == std::errc() && end == name.data() + name.size() && ordinal >= 0 ? ordinal : -1;
}

}  // namespace

void check_device_name(std::string_view name) {
  if (name != "auto" && name != "cpu" && cuda_ordinal(name) < 0)
    throw UserError(fmt::format("unknown device {}: devices are auto, cpu, cuda and cuda:N", quote(name)));
}

std::unique_ptr<kernels::Backend> open_device(std::string_view name, int threads) {
  check_device_name(name);
  if (name == "cpu") return kernels::open_cpu(threads);
  if (name == "auto") return kernels::cuda_device_count(nullptr) > 0 ? kernels::open_cuda(0) : kernels::open_cpu(threads);
  return kernels::open_cuda(cuda_ordinal(name));
}

}  // namespace gradflow
