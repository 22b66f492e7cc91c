// Weights by name from a safetensors file: what gradflow wrote, or the state_dict of a PyTorch module.
//
// Every parameter and every learned state (running statistics) of the network must be in the file, by its name
// and with its shape; gates need not be. Files of gradflow (their metadata say so) hold images' weights as
// [outputs, height, width, channels] and may hold more than weights: moments, activations, gradients. All other
// files are taken for PyTorch's: [outputs, channels, height, width], and "num_batches_tracked" is passed over.
// Elements may be F64, F32, F16 or BF16 and are converted to the network's type, rounded once.
#pragma once

#include <cstddef>
#include <filesystem>

#include "gradflow/engine/parameters.h"

namespace gradflow {

// Returns the number of tensors read. UserError, one line, if the file is damaged or does not fit: tensors that are
// missing, superfluous, of another shape or type, or hold a NaN or an infinity; nothing is changed then.
std::size_t load_weights(const std::filesystem::path& path, ParameterStore& parameters);

}  // namespace gradflow
