// The binary files of CIFAR-10 and CIFAR-100; see dataset_cifar.cpp.
#pragma once

#include <filesystem>
#include <string_view>

#include "gradflow/engine/dataset.h"

namespace gradflow {

// Not normalized, images left in the files. `spec` for messages; classes 10 or 100. UserError, one line: a file that is
// missing, has no whole number of records, or a label out of range.
Dataset read_cifar(std::string_view spec, const std::filesystem::path& folder, int classes);

}  // namespace gradflow
