// What a layer complains of is said with its name.
#pragma once

#include <fmt/format.h>

#include <string>

#include "gradflow/engine/layer.h"
#include "gradflow/kernels/error.h"

namespace gradflow {

// make(); a UserError out of it becomes "layer 'conv1' (conv2d): ...".
template <class Make>
auto blaming_layer(const std::string& name, const Layer& layer, const Make& make) {
  try {
    return make();
  } catch (const UserError& e) {
    throw UserError(fmt::format("layer '{}' ({}): {}", name, layer.type(), e.what()));
  }
}

}  // namespace gradflow
