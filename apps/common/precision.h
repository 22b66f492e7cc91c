// What a network computes in, as options and in reports: --dtype and --tf32.
#pragma once

#include <memory>
#include <string>

#include "gradflow/kernels/backend.h"

namespace CLI {
class App;
}

namespace gradflow::app {

struct PrecisionOptions {
  std::string dtype = "f32";  // f32, bf16, f64; see dtype_help()
  bool tf32 = false;
};

void add_precision_options(CLI::App& command, PrecisionOptions& options);

// By name; UserError for any other than f32, bf16 and f64.
DType parse_dtype(const std::string& name);

// The device by name, with TF32 allowed if that was asked for; UserError where it has none.
std::unique_ptr<kernels::Backend> open_network_device(const std::string& name, bool tf32);

// "bf16 with f32 parameters": how a network of this dtype is stored.
std::string storage_text(DType dtype);

}  // namespace gradflow::app
