// What a forward and backward begin with, and everything they computed, in a file that NumPy and PyTorch read.
#pragma once

#include <string>

#include "gradflow/engine/executor.h"
#include "gradflow/engine/safetensors.h"

namespace gradflow::app {

// Writes what the executor, made with `retain`, holds after forward() and backward():
//   x, labels                          the batch, normalized
//   block07.linear.weight              parameters, by name
//   activation/block07.linear          the output of that layer
//   grad/block07.linear.weight         gradient of the mean loss with respect to the parameter
//   grad/activation/block07.linear     and to the layer's output
void save_tensors(const std::string& file, const Executor& executor, const ParameterStore& parameters,
                  const Metadata& metadata);

// Writes what a step begins with: x, labels, and the parameters by name.
void save_inputs(const std::string& file, const Executor& executor, const ParameterStore& parameters,
                 const Metadata& metadata);

}  // namespace gradflow::app
