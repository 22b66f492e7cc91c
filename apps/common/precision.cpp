#include "apps/common/precision.h"

#include <CLI/CLI.hpp>

#include "apps/common/option_checks.h"
#include "gradflow/engine/device.h"
#include "gradflow/engine/text.h"
#include "gradflow/kernels/error.h"

namespace gradflow::app {

void add_precision_options(CLI::App& command, PrecisionOptions& o) {
  command
      .add_option("--dtype", o.dtype,
                  "f32; bf16: activations and their gradients, f32 parameters; f64: cpu only")
      ->check(one_of({"f32", "bf16", "f64"}))
      ->type_name("T")
      ->capture_default_str();
  command.add_flag("--tf32", o.tf32, "let CUDA multiply f32 numbers as TF32");
}

DType parse_dtype(const std::string& name) {
  for (const DType t : {DType::f32, DType::bf16, DType::f64})
    if (name == name_of(t)) return t;
  throw UserError("unknown dtype " + quote(name) + ": networks are f32, bf16 or f64");
}

std::unique_ptr<kernels::Backend> open_network_device(const std::string& name, bool tf32) {
  auto device = open_device(name);
  if (tf32) device->allow_tf32();
  return device;
}

std::string storage_text(DType dtype) {
  return std::string(name_of(dtype)) + (dtype == DType::bf16 ? " with f32 parameters" : "");
}

}  // namespace gradflow::app
